// x87 environments and FXSAVE against the host's own, unit checks, MXCSR, and pending exceptions.
#include "cpu/fpu.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "cpu/fpu_state.h"
#include "unit/cpu/bare_vm.h"

namespace trapline::cpu {
namespace {

namespace pte = test::pte;
constexpr u64 kGva = 0x10000, kGpa = 0x400000;

struct Guest {
  test::BareVm vm;
  Vcpu& cpu = vm.cpu;
  Guest() {
    vm.enter_long64();
    cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
    cpu.xcr0 = 0xe7;
    reset_fpu(cpu);
    update_mode(cpu);
    vm.map64(kGva, kGpa, pte::p | pte::w | pte::u | pte::a | pte::d);
    cpu.gpr[isa::rbx] = kGva;
  }
  ~Guest() { x87_park(cpu); }
  u8* memory() { return &vm.at<u8>(kGpa); }
  Outcome run(std::vector<u8> bytes) {
    isa::Insn insn;
    EXPECT_EQ(isa::decode(bytes.data(), bytes.size(), cpu.code_size(), cpu.vendor(), insn), isa::DecodeStatus::ok);
    const Semantic s = find_fpu_semantic(insn);
    EXPECT_NE(s, nullptr);
    return s ? s(cpu, insn) : Outcome::stop;
  }
  ::testing::AssertionResult faults(std::vector<u8> bytes, Vector v) {
    if (run(std::move(bytes)) != Outcome::fault) return ::testing::AssertionFailure() << "no fault";
    if (cpu.fault.vector != v) return ::testing::AssertionFailure() << "vector " << static_cast<int>(cpu.fault.vector);
    return ::testing::AssertionSuccess();
  }
};

struct alignas(16) Fx {
  u8 bytes[512];
};

Fx random_image(std::mt19937_64& rng) {
  Fx f;
  for (unsigned at = 0; at < sizeof f; at += 8) {
    const u64 v = rng();
    std::memcpy(f.bytes + at, &v, 8);
  }
  const u32 mxcsr = static_cast<u32>(rng() & 0xffff);
  std::memcpy(f.bytes + 24, &mxcsr, 4);
  std::memset(f.bytes + 14, 0, 2);
  std::memset(f.bytes + 22, 0, 2);
  return f;
}

enum class Save { fxsave, fxsave64, fnstenv, fnsave, fnstenv16, fnsave16 };

// FXRSTOR64 of `in`, then a saving instruction, the process's own state kept.
void on_host(const Fx& in, Fx& out, Save save) {
  static Fx keep;
#define TRAPLINE_SAVE(insn)                                                                                        \
  asm volatile("fxsave64 (%0)\n fxrstor64 (%1)\n " insn " (%2)\n fxrstor64 (%0)" ::"r"(&keep), "r"(&in), "r"(&out) \
               : "memory")
  switch (save) {
    case Save::fxsave:
      TRAPLINE_SAVE("fxsave");
      break;
    case Save::fxsave64:
      TRAPLINE_SAVE("fxsave64");
      break;
    case Save::fnstenv:
      TRAPLINE_SAVE("fnstenv");
      break;
    case Save::fnsave:
      TRAPLINE_SAVE("fnsave");
      break;
    case Save::fnstenv16:
      TRAPLINE_SAVE("data16 fnstenv");
      break;
    case Save::fnsave16:
      TRAPLINE_SAVE("data16 fnsave");
      break;
  }
#undef TRAPLINE_SAVE
}

const std::vector<u8> kFxsave{0x0F, 0xAE, 0x03}, kFxsave64{0x48, 0x0F, 0xAE, 0x03}, kFxrstor64{0x48, 0x0F, 0xAE, 0x0B},
    kFnstenv{0xD9, 0x33}, kFldenv{0xD9, 0x23}, kFnsave{0xDD, 0x33}, kFrstor{0xDD, 0x23}, kFwait{0x9B},
    kFninit{0xDB, 0xE3}, kFnclex{0xDB, 0xE2}, kEmms{0x0F, 0x77}, kLdmxcsr{0x0F, 0xAE, 0x13}, kStmxcsr{0x0F, 0xAE, 0x1B},
    kVzeroupper{0xC5, 0xF8, 0x77}, kVzeroall{0xC5, 0xFC, 0x77};

std::vector<u8> data16(std::vector<u8> b) {
  b.insert(b.begin(), 0x66);
  return b;
}

TEST(Fpu, SavesWhatTheHostSaves) {
  const std::vector<u8> insns[] = {kFxsave, kFxsave64, kFnstenv, kFnsave, data16(kFnstenv), data16(kFnsave)};
  std::mt19937_64 rng{21};
  Guest g;
  for (int round = 0; round < 600; round++) {
    const Fx in = random_image(rng);
    const unsigned which = static_cast<unsigned>(round) % 6;
    Fx host;
    std::memset(host.bytes, 0xa5, sizeof host);
    std::memcpy(g.memory(), in.bytes, sizeof in);
    ASSERT_EQ(g.run(kFxrstor64), Outcome::next);
    if (round & 8) x87_unpark(g.cpu);
    std::memcpy(g.memory(), host.bytes, sizeof host);
    on_host(in, host, static_cast<Save>(which));
    if (which < 2) host.bytes[30] &= ~u8{2};  // MXCSR_MASK without AMD's MM, which no guest is offered (misalignsse)
    ASSERT_EQ(g.run(insns[which]), Outcome::next);
    for (unsigned at = 0; at < sizeof host; at++)
      ASSERT_EQ(g.memory()[at], host.bytes[at]) << "byte " << at << " insn " << which << " round " << round;
  }
}

TEST(Fpu, EnvironmentRoundTripsInBothWidths) {
  std::mt19937_64 rng{22};
  Guest g;
  for (int round = 0; round < 100; round++) {
    const Fx in = random_image(rng);
    std::memcpy(g.memory(), in.bytes, sizeof in);
    ASSERT_EQ(g.run(kFxrstor64), Outcome::next);
    u8 before[kX87ImageBytes] = {}, after[kX87ImageBytes] = {};
    x87_store_image(g.cpu, before, true);
    const bool narrow = round & 1;
    ASSERT_EQ(g.run(narrow ? data16(kFnsave) : kFnsave), Outcome::next);
    EXPECT_EQ(g.cpu.x87.fip, 0u);  // as after FNINIT
    ASSERT_EQ(g.run(narrow ? data16(kFrstor) : kFrstor), Outcome::next);
    x87_store_image(g.cpu, after, true);
    EXPECT_EQ(std::memcmp(before, after, 5), 0) << round;
    EXPECT_EQ(std::memcmp(before + 32, after + 32, 128), 0) << round;
  }
}

TEST(Fpu, RealModeEnvironmentHoldsLinearPointers) {
  Guest g;
  g.cpu.cr0 = cr0::et | cr0::ne;
  g.cpu.efer = 0;
  g.vm.seg(Seg::cs) = g.vm.seg(Seg::ds) = test::BareVm::flat(0x93);
  g.vm.seg(Seg::cs).limit = g.vm.seg(Seg::ds).limit = 0xffff;
  update_mode(g.cpu);
  ASSERT_EQ(g.cpu.mode, Mode::real);
  g.cpu.x87.fcs = 0x1234, g.cpu.x87.fip = 0x56, g.cpu.x87.fds = 0xf000, g.cpu.x87.fdp = 0x10, g.cpu.x87.fop = 0x3aa;
  // [bx] = D9 37: FNSTENV; 16-bit.
  g.cpu.gpr[isa::rbx] = 0x800;
  ASSERT_EQ(g.run({0xD9, 0x37}), Outcome::next);
  const u16* w = &g.vm.at<u16>(0x800);
  EXPECT_EQ(w[3], 0x2396);
  EXPECT_EQ(w[4], 0x1000 | 0x3aa);
  EXPECT_EQ(w[5], 0x0010);
  EXPECT_EQ(w[6], 0xf000);
}

TEST(Fpu, PendingExceptionsReachTheWaitingInstructions) {
  Guest g;
  Fx in{};
  in.bytes[0] = 0x7e, in.bytes[1] = 3;  // FCW: invalid operation unmasked
  in.bytes[2] = 1;                      // FSW: and raised
  in.bytes[24] = 0x80, in.bytes[25] = 0x1f;
  std::memcpy(g.memory(), in.bytes, sizeof in);
  for (const bool live : {false, true}) {
    ASSERT_EQ(g.run(kFxrstor64), Outcome::next);
    if (live) x87_unpark(g.cpu);
    EXPECT_TRUE(x87_pending(g.cpu));
    EXPECT_TRUE(g.faults(kFwait, Vector::mf));
    EXPECT_TRUE(g.faults(kEmms, Vector::mf));
    EXPECT_TRUE(g.faults(kFldenv, Vector::mf));
    EXPECT_TRUE(g.faults(kFrstor, Vector::mf));
    EXPECT_EQ(g.run(kFnclex), Outcome::next);
    EXPECT_FALSE(x87_pending(g.cpu));
    EXPECT_EQ(g.run(kFwait), Outcome::next);
  }
  // Without CR0.NE they are ignored.
  ASSERT_EQ(g.run(kFxrstor64), Outcome::next);
  x87_unpark(g.cpu);
  g.cpu.cr0 &= ~cr0::ne;
  EXPECT_EQ(g.run(kFwait), Outcome::next);
  EXPECT_EQ(g.run(kEmms), Outcome::next);
}

TEST(Fpu, UnitChecks) {
  Guest g;
  const auto vector_of = [&](Unit u) { return check_unit(g.cpu, u) ? -1 : static_cast<int>(g.cpu.fault.vector); };
  constexpr int ud = static_cast<int>(Vector::ud), nm = static_cast<int>(Vector::nm);
  for (Unit u : {Unit::x87, Unit::mmx, Unit::sse, Unit::avx, Unit::avx512, Unit::none}) EXPECT_EQ(vector_of(u), -1);
  g.cpu.cr0 |= cr0::ts;
  for (Unit u : {Unit::x87, Unit::mmx, Unit::sse, Unit::avx, Unit::avx512}) EXPECT_EQ(vector_of(u), nm);
  g.cpu.cr0 |= cr0::em;
  EXPECT_EQ(vector_of(Unit::x87), nm);
  EXPECT_EQ(vector_of(Unit::mmx), ud);
  EXPECT_EQ(vector_of(Unit::sse), ud);
  EXPECT_EQ(vector_of(Unit::avx), nm);  // EM does not matter to VEX
  g.cpu.cr0 &= ~(cr0::em | cr0::ts);
  g.cpu.xcr0 = 7;
  EXPECT_EQ(vector_of(Unit::avx), -1);
  EXPECT_EQ(vector_of(Unit::avx512), ud);
  g.cpu.xcr0 = 3;
  EXPECT_EQ(vector_of(Unit::avx), ud);
  g.cpu.cr4 &= ~cr4::osfxsr;
  EXPECT_EQ(vector_of(Unit::sse), ud);
  EXPECT_EQ(vector_of(Unit::mmx), -1);
}

TEST(Fpu, FwaitNeedsBothMpAndTs) {
  Guest g;
  EXPECT_EQ(g.run(kFninit), Outcome::next);
  g.cpu.cr0 |= cr0::ts;
  EXPECT_EQ(g.run(kFwait), Outcome::next);
  g.cpu.cr0 |= cr0::mp;
  EXPECT_TRUE(g.faults(kFwait, Vector::nm));
}

TEST(Fpu, MxcsrReservedBitsFault) {
  Guest g;
  g.vm.at<u32>(kGpa) = 0x9fc0;
  EXPECT_EQ(g.run(kLdmxcsr), Outcome::next);
  EXPECT_EQ(g.cpu.vec.mxcsr, 0x9fc0u);
  g.vm.at<u32>(kGpa) = 0x11f80;
  EXPECT_TRUE(g.faults(kLdmxcsr, Vector::gp));
  EXPECT_EQ(g.run(kStmxcsr), Outcome::next);
  EXPECT_EQ(g.vm.at<u32>(kGpa), 0x9fc0u);
}

TEST(Fpu, Vzero) {
  Guest g;
  std::memset(g.cpu.vec.zmm, 0x33, sizeof g.cpu.vec.zmm);
  ASSERT_EQ(g.run(kVzeroupper), Outcome::next);
  EXPECT_EQ(g.cpu.vec.zmm[15][15], 0x33);
  EXPECT_EQ(g.cpu.vec.zmm[15][16], 0);
  EXPECT_EQ(g.cpu.vec.zmm[0][63], 0);
  EXPECT_EQ(g.cpu.vec.zmm[16][63], 0x33);
  ASSERT_EQ(g.run(kVzeroall), Outcome::next);
  EXPECT_EQ(g.cpu.vec.zmm[3][0], 0);
  EXPECT_EQ(g.cpu.vec.zmm[16][0], 0x33);
}

TEST(Fpu, FxsaveChecks) {
  Guest g;
  g.cpu.gpr[isa::rbx] = kGva + 8;
  EXPECT_TRUE(g.faults(kFxsave, Vector::gp));
  g.cpu.gpr[isa::rbx] = kGva + kPageSize - 256;
  EXPECT_TRUE(g.faults(kFxsave, Vector::pf));
  g.cpu.cr0 |= cr0::em;
  EXPECT_TRUE(g.faults(kFxsave, Vector::nm));
}

}  // namespace
}  // namespace trapline::cpu
