#include "cpu/para.h"
#include "unit/cpu/platform_fixture.h"

namespace trapline::cpu {
namespace {

struct IdentityTest : PlatformTest {
  Outcome run(std::initializer_list<u8> bytes) { return sem::identity(cpu, decode(bytes)); }
};

TEST_F(IdentityTest, CpuidZeroExtendsAndShowsApicState) {
  cpu.gpr[isa::rax] = 0xdeadbeef'00000001;
  cpu.gpr[isa::rbx] = ~u64{0};
  ASSERT_EQ(run({0x0f, 0xa2}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rbx] >> 32, 0u);
  EXPECT_TRUE(cpu.gpr[isa::rdx] & 1u << 9);
  ASSERT_TRUE(msr_write(cpu, 0x1b, 0xfee00100));
  cpu.gpr[isa::rax] = 1;
  ASSERT_EQ(run({0x0f, 0xa2}), Outcome::next);
  EXPECT_FALSE(cpu.gpr[isa::rdx] & 1u << 9) << "a disabled APIC is not announced";
}

TEST_F(IdentityTest, RdtscReadsTheGuestsTsc) {
  clock.virtual_base = 0x1'00000005;
  cpu.msr.tsc_adjust = 0x10;
  cpu.msr.tsc_aux = 3;
  cpu.gpr[isa::rcx] = ~u64{0};
  ASSERT_EQ(run({0x0f, 0x31}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], 0x15u);
  EXPECT_EQ(cpu.gpr[isa::rdx], 1u);
  EXPECT_EQ(cpu.gpr[isa::rcx], ~u64{0});
  ASSERT_EQ(run({0x0f, 0x01, 0xf9}), Outcome::next);  // RDTSCP
  EXPECT_EQ(cpu.gpr[isa::rcx], 3u);
}

TEST_F(IdentityTest, TsdMakesTheTscPrivileged) {
  cpu.cr4 |= cr4::tsd;
  EXPECT_EQ(run({0x0f, 0x31}), Outcome::next);
  cpu.cpl = 3;
  EXPECT_EQ(run({0x0f, 0x31}), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::gp);
  EXPECT_EQ(run({0x0f, 0x01, 0xf9}), Outcome::fault);
  use_features("-rdtscp");
  EXPECT_EQ(run({0x0f, 0x01, 0xf9}), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::ud);
}

TEST_F(IdentityTest, RdpidShowsTscAuxToEveryone) {
  cpu.msr.tsc_aux = 0x1002;
  cpu.gpr[isa::r9] = ~u64{0};
  cpu.cr4 |= cr4::tsd;
  cpu.cpl = 3;
  ASSERT_EQ(run({0xf3, 0x41, 0x0f, 0xc7, 0xf9}), Outcome::next);  // RDPID r9
  EXPECT_EQ(cpu.gpr[isa::r9], 0x1002u);
}

TEST_F(IdentityTest, RdpmcHasNoCounters) {
  EXPECT_EQ(run({0x0f, 0x33}), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::gp);
}

TEST_F(IdentityTest, RandomNumbersRepeatUnderTheInstructionClock) {
  if (!cpuid->has("rdrand")) GTEST_SKIP() << "this host has no RDRAND";
  clock.virtual_base = 77;
  cpu.arith = 0xffff;
  ASSERT_EQ(run({0x48, 0x0f, 0xc7, 0xf0}), Outcome::next);  // RDRAND rax
  const u64 first = cpu.gpr[isa::rax];
  EXPECT_EQ(cpu.rflags() & flag::arith, flag::cf) << "CF alone";
  clock.virtual_base = 78;
  ASSERT_EQ(run({0x48, 0x0f, 0xc7, 0xf0}), Outcome::next);
  EXPECT_NE(cpu.gpr[isa::rax], first);
  clock.virtual_base = 77;
  ASSERT_EQ(run({0x48, 0x0f, 0xc7, 0xf0}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], first);
  cpu.gpr[isa::rax] = 0x1111'2222'3333'4444;
  ASSERT_EQ(run({0x66, 0x0f, 0xc7, 0xf0}), Outcome::next);  // RDRAND ax
  EXPECT_EQ(cpu.gpr[isa::rax] >> 16, 0x1111'2222'3333u);
  EXPECT_EQ(cpu.gpr[isa::rax] & 0xffff, first & 0xffff);
}

TEST_F(IdentityTest, RandomNumbersComeFromTheHostOtherwise) {
  if (!cpuid->has("rdrand")) GTEST_SKIP() << "this host has no RDRAND";
  clock.instructions = false;
  u64 seen = 0;
  for (int i = 0; i < 8; i++) {
    ASSERT_EQ(run({0x48, 0x0f, 0xc7, 0xf0}), Outcome::next);
    seen |= cpu.gpr[isa::rax];
    EXPECT_TRUE(cpu.carry() || cpu.gpr[isa::rax] == 0);
  }
  EXPECT_NE(seen, 0u);
  use_features("-rdrand");
  EXPECT_EQ(run({0x48, 0x0f, 0xc7, 0xf0}), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::ud);
}

TEST_F(IdentityTest, HypercallsNeedAParavirtualInterface) {
  EXPECT_EQ(sem::hypercall(cpu, isa::Insn{}), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::ud);

  struct Echo : Para {
    bool msr_read(Vcpu&, u32, u64*) override { return false; }
    bool msr_write(Vcpu&, u32, u64) override { return false; }
    u64 hypercall(Vcpu&, u64 number, const std::array<u64, 4>& a) override { return ~(number ^ a[0] ^ a[3]); }
    u64 hypercall_denied(Vcpu&) override { return ~u64{0}; }
    void tsc_adjusted(Vcpu&) override {}
  } echo;
  cpu.para = &echo;
  cpu.mode = Mode::long64;
  cpu.gpr[isa::rax] = 0x1'00000001;
  cpu.gpr[isa::rbx] = 0x2'00000000;
  EXPECT_EQ(sem::hypercall(cpu, isa::Insn{}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], ~u64{0x3'00000001});
  cpu.mode = Mode::protected32;  // 32-bit registers there
  cpu.gpr[isa::rax] = 0x1'00000001;
  EXPECT_EQ(sem::hypercall(cpu, isa::Insn{}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], 0xfffffffeu);
  cpu.cpl = 3;
  EXPECT_EQ(sem::hypercall(cpu, isa::Insn{}), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], 0xffffffffu);
}

}  // namespace
}  // namespace trapline::cpu
