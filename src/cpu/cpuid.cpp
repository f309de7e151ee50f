// The leaves: identity from the host, topology from the number of vCPUs (one package, one thread per core), caches as
// cpuid_caches.h says, features as chosen in cpuid_features.cpp.
#include "cpu/cpuid.h"

#include <algorithm>
#include <bit>

#include "cpu/clock.h"
#include "cpu/cpuid_caches.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

namespace {

constexpr u32 kAnySubleaf = ~u32{0};
constexpr u32 kKvmBase = 0x40000000, kKvmTiming = 0x40000010;
// Bits of KVM_CPUID_FEATURES; docs/paravirtualization.md says what each brings, and why others are left out.
constexpr u32 kKvmClock = 1u << 0 | 1u << 3 | 1u << 24;  // CLOCKSOURCE, CLOCKSOURCE2, CLOCKSOURCE_STABLE_BIT
constexpr u32 kKvmNopIoDelay = 1u << 1, kKvmStealTime = 1u << 5, kKvmPvUnhalt = 1u << 7, kKvmPvTlbFlush = 1u << 9;

// Bits of an APIC id that number the cores.
u32 core_bits(u32 cpus) { return cpus <= 1 ? 0 : std::bit_width(cpus - 1); }

}  // namespace

Result<Cpuid, std::string> Cpuid::make(const CpuidConfig& config, const HostCpu& host) {
  Cpuid c;
  c.config_ = config;
  c.config_.cpus = std::max(config.cpus, 1u);
  c.intel_ = isa::vendor_of_name(host.cpuid(0, 0).ebx) == isa::Vendor::intel;
  const u32 signature = host.cpuid(1, 0).eax;
  c.family_ = static_cast<u8>((signature >> 8 & 15) + ((signature >> 8 & 15) == 15 ? signature >> 20 & 0xff : 0));
  c.mxcsr_mask_ = host.mxcsr_mask & 0xffff;  // without AMD's misaligned-SSE bit 17
  if (auto chosen = c.choose_features(host); !chosen) return Err{chosen.error()};
  c.derive_register_bits();
  c.build_leaves(host);
  return c;
}

void Cpuid::add(u32 leaf, u32 subleaf, CpuidRegs regs) { entries_.push_back({leaf, subleaf, regs}); }

void Cpuid::build_leaves(const HostCpu& host) {
  max_basic_ = intel_ ? 0x1f : 0xd;
  max_extended_ = intel_ ? 0x80000008 : 0x80000021;
  build_basic(host);
  build_caches(host);
  build_extended(host);
  build_xsave(host);
  if (config_.para_kvm) build_kvm();
  if (config_.para_xen) build_xen();
}

void Cpuid::build_basic(const HostCpu& host) {
  CpuidRegs vendor = host.cpuid(0, 0);
  vendor.eax = max_basic_;
  add(0, kAnySubleaf, vendor);
  // Family, model and stepping are the host's. EBX: CLFLUSH line of 8 quadwords, number of addressable ids.
  const u32 ids = std::min(1u << core_bits(config_.cpus), 255u);
  add(1, kAnySubleaf,
      {host.cpuid(1, 0).eax & 0x0fff3fff, ids << 16 | 8 << 8, word(FeatureWord::l1_ecx), word(FeatureWord::l1_edx)});
  if (intel_) add(2, kAnySubleaf, {0x00feff01, 0xf0, 0, 0});  // "see leaves 4 and 18H"; 64-byte prefetch
  add(6, kAnySubleaf, {word(FeatureWord::l6_eax), 0, 0, 0});
  add(7, 0, {intel_ ? 2u : 1u, word(FeatureWord::l7_ebx), word(FeatureWord::l7_ecx), word(FeatureWord::l7_edx)});
  add(7, 1, {word(FeatureWord::l7_1_eax), 0, 0, 0});
  add(7, 2, {0, 0, 0, word(FeatureWord::l7_2_edx)});
  if (intel_ && config_.tsc_khz) {
    // TSC = crystal * EBX / EAX. The crystal also clocks the local APIC timer: see lapic_prescale.
    const u32 prescale = lapic_prescale(config_.tsc_khz), mhz = static_cast<u32>(config_.tsc_khz / 1000);
    add(0x15, kAnySubleaf, {1, prescale, static_cast<u32>(config_.tsc_khz * 1000 / prescale), 0});
    add(0x16, kAnySubleaf, {mhz & 0xffff, mhz & 0xffff, 100, 0});
  }
}

void Cpuid::build_caches(const HostCpu& host) {
  const GuestCaches caches = guest_caches(host, intel_, config_.cpus, core_bits(config_.cpus));
  for (u32 i = 0; i < caches.levels.size(); i++) add(caches.leaf, i, caches.levels[i]);
}

void Cpuid::build_extended(const HostCpu& host) {
  const u32 host_max = host.cpuid(0x80000000, 0).eax;
  const auto ask = [&](u32 leaf) { return leaf <= host_max ? host.cpuid(leaf, 0) : CpuidRegs{}; };
  CpuidRegs top = ask(0x80000000);
  top.eax = max_extended_;
  add(0x80000000, kAnySubleaf, top);

  CpuidRegs e1{0, 0, word(FeatureWord::e1_ecx), word(FeatureWord::e1_edx)};
  if (!intel_) {
    e1.eax = ask(0x80000001).eax;
    e1.edx |= word(FeatureWord::l1_edx) & 0x0183f3ff;  // AMD repeats these bits of leaf 1
  }
  add(0x80000001, kAnySubleaf, e1);
  for (u32 leaf = 0x80000002; leaf <= 0x80000005; leaf++) add(leaf, kAnySubleaf, ask(leaf));
  CpuidRegs caches = ask(0x80000006);
  if (!intel_) caches.edx = guest_caches(host, intel_, config_.cpus, core_bits(config_.cpus)).legacy_edx;
  add(0x80000006, kAnySubleaf, caches);
  add(0x80000007, kAnySubleaf, {0, 0, 0, word(FeatureWord::e7_edx)});

  const u32 host_bits = host_max >= 0x80000008 ? ask(0x80000008).eax & 0xff : 36;
  physical_bits_ = static_cast<u8>(std::clamp(host_bits, 36u, 46u));
  const u32 cores = intel_ ? 0 : core_bits(config_.cpus) << 12 | std::min(config_.cpus - 1, 255u);
  add(0x80000008, kAnySubleaf, {48u << 8 | physical_bits_, word(FeatureWord::e8_ebx), cores, 0});
  if (!intel_) add(0x80000021, kAnySubleaf, {word(FeatureWord::e21_eax), 0, word(FeatureWord::e21_ecx), 0});
}

void Cpuid::build_kvm() {
  add(kKvmBase, kAnySubleaf, {kKvmTiming, 0x4b4d564b, 0x564b4d56, 0x4d});  // "KVMKVMKVM"
  u32 features = kKvmClock | kKvmNopIoDelay | kKvmPvUnhalt;
  if (config_.para_steal) features |= kKvmStealTime | kKvmPvTlbFlush;
  add(kKvmBase + 1, kAnySubleaf, {features, 0, 0, 0});
  const u32 khz = static_cast<u32>(config_.tsc_khz);
  add(kKvmTiming, kAnySubleaf, {khz, khz / lapic_prescale(config_.tsc_khz), 0, 0});
}

// xen/arch-x86/cpuid.h. Every CPUID shows them, as with CPUID faulting.
void Cpuid::build_xen() {
  constexpr u32 kBase = 0x40000000, kVersion = 4 << 16 | 17, kNeverEmulated = 2;
  add(kBase, kAnySubleaf, {kBase + 5, 0x566e6558, 0x65584d4d, 0x4d4d566e});  // "XenVMMXenVMM"
  add(kBase + 1, kAnySubleaf, {kVersion, 0, 0, 0});
  add(kBase + 2, kAnySubleaf, {1, kBase, 1, 0});  // accessed and dirty bits can be kept
  add(kBase + 3, 0, {0, kNeverEmulated, static_cast<u32>(config_.tsc_khz), 1});
  add(kBase + 5, 0, {0, physical_bits_, 0, 0});
}

void Cpuid::build_xsave(const HostCpu& host) {
  if (host.cpuid(0, 0).eax < 0xd) return;
  for (XsaveComponent& c : xsave_components_) {
    const CpuidRegs r = host.cpuid(0xd, c.number);
    if (r.eax != c.size) continue;  // not there
    c.offset = r.ebx;
    c.align64 = r.ecx & 2;
  }
}

// Leaves 0BH and 1FH: a level of threads (one), a level of cores.
CpuidRegs Cpuid::topology(u32 subleaf, u32 apic_id) const {
  const u32 number = subleaf & 0xff;
  if (number == 0) return {0, 1, 1u << 8, apic_id};
  if (number == 1) return {core_bits(config_.cpus), std::min(config_.cpus, 0xffffu), 2u << 8 | 1, apic_id};
  return {0, 0, number, apic_id};
}

CpuidRegs Cpuid::xsave(u32 subleaf, u64 xcr0, u64 xss) const {
  if (!has(Feature::xsave)) return {};
  const auto standard_size = [this](u64 components) {
    u32 size = 576;
    for (const XsaveComponent& c : xsave_components_)
      if (components >> c.number & 1) size = std::max(size, c.offset + c.size);
    return size;
  };
  const auto compacted_size = [this](u64 components) {
    u32 size = 576;
    for (const XsaveComponent& c : xsave_components_)
      if (components >> c.number & 1) size = (c.align64 ? (size + 63) & ~63u : size) + c.size;
    return size;
  };
  if (subleaf == 0) return {static_cast<u32>(xcr0_allowed_), standard_size(xcr0), standard_size(xcr0_allowed_), 0};
  if (subleaf == 1) {
    const u32 features = word(FeatureWord::ld_1_eax);
    return {features, features & 0xa ? compacted_size(xcr0 | xss) : 0, static_cast<u32>(xss_allowed()), 0};
  }
  for (const XsaveComponent& c : xsave_components_)
    if (c.number == subleaf && xcr0_allowed_ >> c.number & 1) return {c.size, c.offset, c.align64 ? 2u : 0u, 0};
  return {};
}

CpuidRegs Cpuid::query(u32 leaf, u32 subleaf, u32 apic_id, u64 xcr0, u64 xss, u64 cr4) const {
  const bool hypervisor_range = leaf >> 16 == 0x4000;
  const bool in_range = leaf <= max_basic_ || (leaf >= 0x80000000 && leaf <= max_extended_);
  if (!in_range && !hypervisor_range) {
    if (!intel_) return {};
    leaf = max_basic_;  // Intel answers as for the highest basic leaf (SDM Vol. 2A, CPUID)
  }
  switch (leaf) {
    case 0xb:
    case 0x1f:
      return topology(subleaf, apic_id);
    case 0xd:
      return xsave(subleaf, xcr0, xss);
    case 0x8000001e:
      if (intel_ || !has(Feature::topoext)) return {};
      return {apic_id, apic_id & 0xff, 0, 0};  // core id, one thread per core; one node
    default:
      break;
  }
  for (const Entry& e : entries_) {
    if (e.leaf != leaf || (e.subleaf != kAnySubleaf && e.subleaf != subleaf)) continue;
    CpuidRegs r = e.regs;
    if (leaf == 1) {
      r.ebx |= (apic_id & 0xff) << 24;
      if (cr4 & cr4::osxsave) r.ecx |= 1u << 27;
    }
    return r;
  }
  return {};
}

bool Cpuid::has_subleaves(u32 leaf) const {
  const auto known = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.leaf == leaf; });
  return known == entries_.end() || known->subleaf != kAnySubleaf;
}

}  // namespace trapline::cpu
