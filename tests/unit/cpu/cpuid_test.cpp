#include "cpu/cpuid.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "cpu/clock.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {
namespace {

using testing::HasSubstr;

// A host whose every feature bit is set: what comes through is what the policy lets through.
HostCpu full_host(bool amd) {
  HostCpu h;
  h.xcr0 = ~u64{0};
  h.mxcsr_mask = 0x2ffff;
  h.cpuid = [amd](u32 leaf, u32 subleaf) -> CpuidRegs {
    switch (leaf) {
      case 0:
        return amd ? CpuidRegs{0x20, 0x68747541, 0x444d4163, 0x69746e65}
                   : CpuidRegs{0x20, 0x756e6547, 0x6c65746e, 0x49656e69};
      case 1:
        return {amd ? 0x00a20f12u : 0x000c06f2u, 0x07400800, ~0u, ~0u};
      case 4:
      case 0x8000001d:
        if (amd != (leaf == 0x8000001d)) return {};
        if (subleaf < 3) return {0x0c000121 | (subleaf + (subleaf == 0)) << 5, 0x02c0003f, 0x3f, 0};
        return subleaf == 3 ? CpuidRegs{0xfc1fc163, 0x04c0003f, 0x33fff, 4} : CpuidRegs{};
      case 7:
        return subleaf == 0 ? CpuidRegs{2, ~0u, ~0u, ~0u} : CpuidRegs{~0u, ~0u, ~0u, ~0u};
      case 0xd:
        return {~0u, ~0u, ~0u, ~0u};
      case 0x80000000:
        return {0x80000028, 0, 0, 0};
      case 0x80000008:
        return {0x00303934, ~0u, ~0u, ~0u};
      default:
        return {~0u, ~0u, ~0u, ~0u};
    }
  };
  return h;
}

// A host of 2003: SSE2 and 64-bit mode, 36 address bits, nothing else.
HostCpu old_host() {
  HostCpu h;
  h.xcr0 = 3;
  h.cpuid = [](u32 leaf, u32) -> CpuidRegs {
    switch (leaf) {
      case 0:
        return {5, 0x756e6547, 0x6c65746e, 0x49656e69};
      case 1:
        return {0xf41, 0x800, 1, 0x0783fbff};
      case 0x80000000:
        return {0x80000004, 0, 0, 0};
      case 0x80000001:
        return {0, 0, 1, 1u << 29 | 1u << 11};
      default:
        return {};
    }
  };
  return h;
}

Cpuid make(const HostCpu& host, CpuidConfig config = {}) {
  auto made = Cpuid::make(config, host);
  EXPECT_TRUE(made) << (made ? "" : made.error());
  return *made;
}
std::string error(const HostCpu& host, std::string features) {
  auto made = Cpuid::make({.features = std::move(features)}, host);
  return made ? "accepted" : made.error();
}

TEST(Cpuid, NothingThatIsNotVirtualizedIsOffered) {
  for (const bool amd : {false, true}) {
    const Cpuid c = make(full_host(amd));
    for (const char* name : {"vme",      "vmx",      "svm",     "hle",        "rtm",          "sgx",
                             "mpx",      "pku",      "la57",    "user_shstk", "ibt",          "amx_tile",
                             "amx_bf16", "intel_pt", "monitor", "waitpkg",    "uintr",        "dca",
                             "smx",      "est",      "pdcm",    "arch_lbr",   "tsxldtrk",     "xfd",
                             "lam",      "mwaitx",   "xop",     "fma4",       "perfctr_core", "bus_lock_detect",
                             "dtes64",   "rdt_a"})
      EXPECT_FALSE(c.has(name)) << name;
    for (u32 leaf : {5u, 9u, 0xau, 0x12u, 0x14u, 0x1du, 0x1eu}) {
      const CpuidRegs r = c.query(leaf, 0, 0, 1, 0, 0);
      if (leaf > c.query(0, 0, 0, 1, 0, 0).eax) continue;
      EXPECT_EQ(r.eax | r.ebx | r.ecx | r.edx, 0u) << leaf;
    }
    EXPECT_EQ(c.query(7, 2, 0, 1, 0, 0).edx & ~(1u << 4), 0u);
    EXPECT_EQ(c.mxcsr_mask(), 0xffffu) << "no misaligned SSE mode";
  }
}

TEST(Cpuid, EveryBitGivenToTheGuestHasARow) {
  // The tables hold each bit once; two rows for one bit would make -x ineffective.
  std::set<std::pair<u8, u8>> seen;
  for (const FeatureBit& f : kFeatureBits)
    EXPECT_TRUE(seen.insert({static_cast<u8>(f.word), f.bit}).second) << int{f.bit};
}

TEST(Cpuid, SoftwareFeaturesNeedNoHost) {
  const Cpuid c = make(old_host());
  for (const char* name :
       {"smep", "smap", "umip", "pcid", "invpcid", "fsgsbase", "x2apic", "tsc_deadline_timer", "xsave", "xsaves",
        "pdpe1gb", "nx", "rdtscp", "rdpid", "arat", "nonstop_tsc", "erms", "hypervisor"})
    EXPECT_TRUE(c.has(name)) << name;
  for (const char* name : {"avx", "sse4_1", "popcnt", "rdrand", "clwb", "serialize", "bmi1"})
    EXPECT_FALSE(c.has(name)) << name;
  EXPECT_EQ(c.xcr0_allowed(), 3u);
  EXPECT_EQ(c.physical_bits(), 36);
  EXPECT_EQ(c.query(0xd, 0, 0, 3, 0, 0).ecx, 576u);
}

TEST(Cpuid, VectorStateTheHostKernelDidNotEnableIsNotThere) {
  HostCpu h = full_host(false);
  h.xcr0 = 7;
  Cpuid c = make(h);
  EXPECT_TRUE(c.has("avx2"));
  EXPECT_FALSE(c.has("avx512f"));
  EXPECT_FALSE(c.has("avx512vl"));
  EXPECT_EQ(c.xcr0_allowed(), 7u);
  h.xcr0 = 3;
  EXPECT_FALSE(make(h).has("fma"));
}

TEST(Cpuid, FeatureOptions) {
  const HostCpu h = full_host(false);
  const Cpuid c = make(h, {.features = "-avx,-rdrand"});
  for (const char* name :
       {"avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_fp16", "vaes", "avx_vnni", "rdrand"})
    EXPECT_FALSE(c.has(name)) << name;
  EXPECT_TRUE(c.has("sse4_2"));
  EXPECT_EQ(c.xcr0_allowed(), 3u);
  EXPECT_EQ(make(h, {.features = "-smep"}).cr4_allowed() & cr4::smep, 0u);
  EXPECT_EQ(make(h, {.features = "-nx,-lm"}).efer_allowed(), efer::sce);
  EXPECT_TRUE(make(h, {.features = "-avx,+avx"}).has("avx2")) << "the last word counts";
}

TEST(Cpuid, FeatureOptionErrorsNameTheCulprit) {
  const HostCpu h = full_host(false);
  EXPECT_THAT(error(h, "+warp9"), HasSubstr("unknown CPU feature 'warp9'"));
  EXPECT_THAT(error(h, "-warp9"), HasSubstr("'warp9'"));
  EXPECT_THAT(error(h, "avx"), HasSubstr("'avx' is not of the form"));
  EXPECT_THAT(error(h, "+avx,,-fma"), HasSubstr("''"));
  EXPECT_THAT(error(h, "+rtm"), HasSubstr("'rtm' is not virtualized"));
  EXPECT_THAT(error(h, "+autoibrs"), HasSubstr("AMD"));
  EXPECT_THAT(error(old_host(), "+avx2"), HasSubstr("this host's CPU has no 'avx2'"));
  EXPECT_THAT(error(h, "-avx,+avx2"), HasSubstr("'avx2' needs 'avx'"));
  EXPECT_EQ(error(h, "-vmx,+sse3,+lzcnt"), "accepted");
}

TEST(Cpuid, LeafOneFollowsTheVcpu) {
  const Cpuid c = make(full_host(false), {.cpus = 3});
  const CpuidRegs r = c.query(1, 0, 2, 1, 0, 0);
  EXPECT_EQ(r.ebx >> 24, 2u);
  EXPECT_EQ(r.ebx >> 16 & 0xff, 4u);
  EXPECT_EQ(r.ebx >> 8 & 0xff, 8u);
  EXPECT_EQ(r.eax, 0xc06f2u);
  EXPECT_FALSE(r.ecx & 1u << 27);
  EXPECT_TRUE(c.query(1, 0, 2, 1, 0, cr4::osxsave).ecx & 1u << 27);
}

// Every way of asking for the topology gives one package, one thread per core.
TEST(Cpuid, Topology) {
  const std::map<u32, u32> bits_for = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {64, 6}};
  for (const auto& [cpus, bits] : bits_for) {
    const Cpuid c = make(full_host(false), {.cpus = cpus});
    for (u32 leaf : {0xbu, 0x1fu}) {
      const CpuidRegs thread = c.query(leaf, 0, cpus - 1, 1, 0, 0), core = c.query(leaf, 1, cpus - 1, 1, 0, 0);
      EXPECT_EQ(thread.eax, 0u);
      EXPECT_EQ(thread.ebx, 1u);
      EXPECT_EQ(thread.ecx, 0x100u);
      EXPECT_EQ(core.eax, bits);
      EXPECT_EQ(core.ebx, cpus);
      EXPECT_EQ(core.ecx, 0x201u);
      EXPECT_EQ(core.edx, cpus - 1);
      EXPECT_EQ(c.query(leaf, 2, 0, 1, 0, 0).ecx, 2u) << "an invalid level";
    }
    EXPECT_EQ(c.query(4, 0, 0, 1, 0, 0).eax >> 26, (1u << bits) - 1);
    EXPECT_EQ(c.query(4, 0, 0, 1, 0, 0).eax >> 14 & 0xfff, 0u);
    EXPECT_EQ(c.query(4, 3, 0, 1, 0, 0).eax >> 14 & 0xfff, (1u << bits) - 1);
    EXPECT_EQ(c.query(4, 4, 0, 1, 0, 0).eax, 0u);

    const Cpuid a = make(full_host(true), {.cpus = cpus});
    EXPECT_EQ(a.query(0x80000008, 0, 0, 1, 0, 0).ecx, bits << 12 | (cpus - 1));
    EXPECT_EQ(a.query(0x8000001e, 0, cpus - 1, 1, 0, 0).eax, cpus - 1);
    EXPECT_EQ(a.query(0x8000001e, 0, cpus - 1, 1, 0, 0).ebx, cpus - 1);
  }
}

TEST(Cpuid, XsaveLeaves) {
  const Cpuid c = make(full_host(false));
  EXPECT_EQ(c.xcr0_allowed(), 0xe7u);
  const CpuidRegs main = c.query(0xd, 0, 0, 7, 0, 0);
  EXPECT_EQ(main.eax, 0xe7u);
  EXPECT_EQ(main.ebx, 832u) << "what XCR0 enables";
  EXPECT_EQ(main.ecx, 2688u) << "all that could be enabled";
  const CpuidRegs sub = c.query(0xd, 1, 0, 0xe7, 0, 0);
  EXPECT_EQ(sub.eax, 15u);
  EXPECT_EQ(sub.ebx, 576u + 256 + 64 + 512 + 1024);
  EXPECT_EQ(sub.ecx, 0u);
  EXPECT_EQ(c.query(0xd, 5, 0, 7, 0, 0).ebx, 1088u);
  EXPECT_EQ(c.query(0xd, 9, 0, 7, 0, 0).eax, 0u) << "PKRU";
  EXPECT_EQ(c.query(0xd, 18, 0, 7, 0, 0).eax, 0u) << "AMX tiles";
  EXPECT_EQ(make(full_host(false), {.features = "-xsave"}).query(0xd, 0, 0, 1, 0, 0).eax, 0u);
}

TEST(Cpuid, XsavePlacesAreTheHosts) {
  HostCpu h = full_host(true);
  h.cpuid = [inner = h.cpuid](u32 leaf, u32 subleaf) {
    const std::map<u32, CpuidRegs> zen4 = {
        {2, {256, 576, 0, 0}}, {5, {64, 832, 0, 0}}, {6, {512, 896, 2, 0}}, {7, {1024, 1408, 2, 0}}};
    return leaf == 0xd && zen4.contains(subleaf) ? zen4.at(subleaf) : inner(leaf, subleaf);
  };
  const Cpuid c = make(h);
  EXPECT_EQ(c.query(0xd, 5, 0, 7, 0, 0).ebx, 832u);
  EXPECT_EQ(c.query(0xd, 0, 0, 7, 0, 0).ecx, 2432u);
  EXPECT_EQ(c.query(0xd, 6, 0, 7, 0, 0).ecx, 2u);
  EXPECT_EQ(c.query(0xd, 1, 0, 0xe7, 0, 0).ebx, 576u + 256 + 64 + 512 + 1024);
}

// Linux computes crystal_khz * ratio in 32 bits and takes the crystal for the local APIC timer's clock.
TEST(Cpuid, FrequencyLeavesAreExactInThirtyTwoBits) {
  for (const u64 khz : {1'000'000ull, 2'299'998ull, 4'294'967ull, 5'100'002ull}) {
    const Cpuid c = make(full_host(false), {.tsc_khz = khz});
    const CpuidRegs r = c.query(0x15, 0, 0, 1, 0, 0);
    const u32 crystal_khz = r.ecx / 1000;
    EXPECT_EQ(u64{crystal_khz * r.ebx / r.eax}, khz);
    EXPECT_EQ(u64{crystal_khz}, khz / lapic_prescale(khz));
    EXPECT_EQ(u64{c.query(0x16, 0, 0, 1, 0, 0).eax}, khz / 1000);
  }
}

TEST(Cpuid, KvmLeaves) {
  const Cpuid with = make(full_host(false), {.para_kvm = true, .tsc_khz = 2'300'000});
  const CpuidRegs base = with.query(0x40000000, 0, 0, 1, 0, 0);
  EXPECT_EQ(base.eax, 0x40000010u);
  EXPECT_EQ(base.ebx, 0x4b4d564bu);
  EXPECT_EQ(base.ecx, 0x564b4d56u);
  EXPECT_EQ(base.edx, 0x4du);
  EXPECT_EQ(with.query(0x40000001, 0, 0, 1, 0, 0).eax, 0x0100008bu);
  const Cpuid steal =
      make(full_host(false), {.para_kvm = true, .tsc_khz = 2'300'000, .features = {}, .para_steal = true});
  EXPECT_EQ(steal.query(0x40000001, 0, 0, 1, 0, 0).eax, 0x010002abu);
  EXPECT_EQ(with.query(0x40000010, 0, 0, 1, 0, 0).eax, 2'300'000u);
  const Cpuid without = make(full_host(false), {.para_kvm = false});
  for (u32 leaf : {0x40000000u, 0x40000001u, 0x40000010u}) EXPECT_EQ(without.query(leaf, 0, 0, 1, 0, 0).eax, 0u);
  EXPECT_TRUE(without.has("hypervisor"));
}

TEST(Cpuid, OutOfRangeLeaves) {
  const Cpuid intel = make(full_host(false)), amd = make(full_host(true));
  EXPECT_EQ(intel.query(0x20, 1, 3, 1, 0, 0).edx, intel.query(0x1f, 1, 3, 1, 0, 0).edx);
  EXPECT_EQ(intel.query(0x8fffffff, 0, 3, 1, 0, 0).ecx, 0x100u) << "as for leaf 1FH";
  EXPECT_EQ(amd.query(0x20, 0, 3, 1, 0, 0).edx, 0u);
}

TEST(Cpuid, MitigationsAreNotNeeded) {
  const Cpuid intel = make(full_host(false)), amd = make(full_host(true));
  EXPECT_TRUE(intel.has(Feature::arch_capabilities));
  EXPECT_TRUE(intel.has(Feature::spec_ctrl));
  EXPECT_FALSE(intel.has("md_clear"));
  EXPECT_EQ(intel.query(7, 0, 0, 1, 0, 0).eax, 2u);
  EXPECT_EQ(intel.query(7, 2, 0, 1, 0, 0).edx, 1u << 4) << "BHI_CTRL: else kernels clear the branch history themselves";
  EXPECT_EQ(amd.query(7, 2, 0, 1, 0, 0).edx, 0u);
  EXPECT_EQ(arch_cap::offered & 1u << 2, 0u) << "RSBA would ask for return-stack stuffing";
  EXPECT_FALSE(amd.has(Feature::arch_capabilities)) << "no AMD processor has it";
  for (const char* name : {"autoibrs", "srso_no", "btc_no", "amd_ssb_no", "tsa_sq_no", "tsa_l1_no"})
    EXPECT_TRUE(amd.has(name)) << name;
  EXPECT_TRUE(amd.efer_allowed() & 1u << 21);
}

TEST(Cpuid, PhysicalAddressWidth) {
  EXPECT_EQ(make(full_host(false)).physical_bits(), 46) << "capped";
  EXPECT_EQ(make(full_host(false)).query(0x80000008, 0, 0, 1, 0, 0).eax, 48u << 8 | 46u);
}

TEST(Cpuid, ThisHost) {
  const auto c = Cpuid::make({.cpus = 2, .para_kvm = true, .tsc_khz = 2'000'000, .features = {}});
  ASSERT_TRUE(c) << c.error();
  EXPECT_TRUE(c->has("sse2"));
  EXPECT_TRUE(c->has("lm"));
  EXPECT_GE(c->physical_bits(), 36);
  EXPECT_EQ(c->mxcsr_mask() & 0xffbf, 0xffbfu);
  EXPECT_EQ(c->xcr0_allowed() & ~u64{0xe7}, 0u);
}

}  // namespace
}  // namespace trapline::cpu
