// Far transfers, IRET, software interrupts, fast system calls.
#include <gtest/gtest.h>

#include "cpu/stack.h"
#include "ring_vm.h"
#include "support/vendors.h"

namespace trapline::cpu::test {
namespace {

constexpr u32 kIf = flag::if_;

// JMP and CALL ptr16:32.
std::string far_jump(RingVm& vm, u16 selector, u32 offset = 0x9000) {
  const auto b = [](u64 v, int i) { return static_cast<u8>(v >> 8 * i); };
  return vm.try_run({0xea, b(offset, 0), b(offset, 1), b(offset, 2), b(offset, 3), b(selector, 0), b(selector, 1)});
}
std::string far_call(RingVm& vm, u16 selector, u32 offset = 0x9000) {
  const auto b = [](u64 v, int i) { return static_cast<u8>(v >> 8 * i); };
  return vm.try_run({0x9a, b(offset, 0), b(offset, 1), b(offset, 2), b(offset, 3), b(selector, 0), b(selector, 1)});
}

// -- Far JMP

TEST(FarJump, CodeSegments) {
  RingVm vm{false};
  EXPECT_EQ(far_jump(vm, sel::code16, 0x123), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::protected16);
  EXPECT_EQ(vm.cpu.rip, 0x123u);
  EXPECT_EQ(vm.access(sel::code16), 0x9b);

  vm.ring0();
  EXPECT_EQ(far_jump(vm, 0), "#13(0x0)");
  EXPECT_EQ(far_jump(vm, sel::end), "#13(0xc0)") << "outside the table";
  EXPECT_EQ(far_jump(vm, 4 | 8), "#13(0xc)") << "no LDT";
  EXPECT_EQ(far_jump(vm, sel::data0), "#13(0x10)");
  EXPECT_EQ(far_jump(vm, sel::code3), "#13(0x30)") << "a less privileged one";
  EXPECT_EQ(far_jump(vm, sel::code16, 0x10000), "#13(0x0)") << "beyond the limit";
  vm.set(sel::code16, RingVm::descriptor(0, 0xffff, 0x001a));
  EXPECT_EQ(far_jump(vm, sel::code16), "#11(0xa8)");
  EXPECT_EQ(vm.cpu.rip, 0x10000u);

  vm.ring3();
  EXPECT_EQ(far_jump(vm, sel::code0), "#13(0x8)");
  EXPECT_EQ(far_jump(vm, sel::conforming), "ok");
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.selector(Seg::cs), sel::conforming | 3) << "RPL is the CPL";
}

TEST(FarJump, RealMode) {
  RingVm vm{false};
  vm.cpu.cr0 = cr0::et;
  vm.seg(Seg::cs).limit = 0xffff;
  vm.seg(Seg::cs).attr = 0x9b;
  update_mode(vm.cpu);
  EXPECT_EQ(vm.try_run({0xea, 0x34, 0x12, 0x00, 0xf0}), "ok");
  EXPECT_EQ(vm.cpu.rip, 0x1234u);
  EXPECT_EQ(vm.seg(Seg::cs).linear_base, 0xf0000u);
  EXPECT_EQ(vm.cpu.mode, Mode::real);
  EXPECT_EQ(vm.try_run({0x66, 0xea, 0, 0, 1, 0, 0, 0xf0}), "#13(0x0)");
}

TEST(FarJump, FromRealToProtectedMode) {  // as every boot loader does
  RingVm vm{false};
  vm.cpu.cr0 = cr0::et;
  vm.seg(Seg::cs) = RingVm::segment(0x900, 0x9000, 0xffff, 0x9b);
  update_mode(vm.cpu);
  vm.cpu.cr0 |= cr0::pe;
  update_mode(vm.cpu);
  ASSERT_EQ(vm.cpu.mode, Mode::protected16);
  EXPECT_EQ(vm.try_run({0x66, 0xea, 0, 0, 0x10, 0, sel::code0, 0}), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
  EXPECT_EQ(vm.cpu.rip, 0x100000u);
}

TEST(FarJump, LongModeTargets) {
  RingVm vm{true};
  vm.at<u64>(0x8000) = 0x9000 | u64{sel::code0} << 32;
  EXPECT_EQ(vm.try_run({0xff, 0x2c, 0x25, 0x00, 0x80, 0, 0}), "ok") << "to compatibility mode";
  EXPECT_EQ(vm.cpu.mode, Mode::compat32);
  EXPECT_EQ(far_jump(vm, sel::code64_0), "ok") << "and back";
  EXPECT_EQ(vm.cpu.mode, Mode::long64);
  vm.set(sel::code0, RingVm::descriptor(0, 0xfffff, 0xe09a));
  EXPECT_EQ(vm.try_run({0xff, 0x2c, 0x25, 0x00, 0x80, 0, 0}), "#13(0x8)") << "L and D";
  // m16:64 with a non-canonical offset; for AMD it is m16:32, and a selector beyond the table
  vm.at<u64>(0x8000) = 0x8000'0000'0000;
  vm.at<u16>(0x8008) = sel::code64_0;
  EXPECT_EQ(vm.try_run({0x48, 0xff, 0x2c, 0x25, 0x00, 0x80, 0, 0}),
            vm.cpu.vendor() == isa::Vendor::amd ? "#13(0x8000)" : "#13(0x0)");
}

// -- Far CALL and RET

TEST(FarCall, ThereAndBack) {
  RingVm vm{false};
  EXPECT_EQ(far_call(vm, sel::code0), "ok");
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 8);
  EXPECT_EQ(vm.stack(0), 0x10007u);
  EXPECT_EQ(vm.stack(1), sel::code0);
  EXPECT_EQ(vm.try_run({0xca, 4, 0}), "ok");  // RETF 4
  EXPECT_EQ(vm.cpu.rip, 0x10007u);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 + 4);
}

TEST(FarCall, GateWithParametersAndReturnToTheOuterRing) {
  RingVm vm{false};
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code0, 0x7000, 0xec, 2));
  vm.ring3();
  vm.put_segment(Seg::es, sel::data0, 0xc093);  // will have to go
  vm.stack(0);
  vm.at<u32>(RingVm::kStack3) = 0x11111111;
  vm.at<u32>(RingVm::kStack3 + 4) = 0x22222222;
  EXPECT_EQ(far_call(vm, sel::gate | 3), "ok");
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.cpu.rip, 0x7000u);
  EXPECT_EQ(vm.selector(Seg::cs), sel::code0);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 24);
  EXPECT_EQ(vm.stack(0), 0x10007u);
  EXPECT_EQ(vm.stack(1), sel::code3);
  EXPECT_EQ(vm.stack(2), 0x11111111u);
  EXPECT_EQ(vm.stack(3), 0x22222222u);
  EXPECT_EQ(vm.stack(4), RingVm::kStack3);
  EXPECT_EQ(vm.stack(5), sel::data3);

  EXPECT_EQ(vm.try_run({0xca, 8, 0}), "ok");
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.cpu.rip, 0x10007u);
  EXPECT_EQ(vm.rsp(), RingVm::kStack3 + 8);
  EXPECT_EQ(vm.selector(Seg::ss), sel::data3);
  EXPECT_EQ(vm.selector(Seg::es), 0);
  EXPECT_FALSE(vm.seg(Seg::es).usable);
  EXPECT_EQ(vm.selector(Seg::ds), sel::data3);
}

// The FS and GS bases survive a return to an outer ring that takes the selector away; null selectors lose their RPL.
TEST(FarReturn, SegmentsThatTheOuterRingMayNotHave) {
  RingVm vm{true};
  vm.seg(Seg::fs) = RingVm::segment(sel::data0, 0x1234'5678'9000, 0xffffffff, 0xc093);
  vm.seg(Seg::gs) = null_segment(3);
  vm.seg(Seg::gs).base = 0xffff'8800'0000'1000;
  vm.seg(Seg::es) = RingVm::segment(sel::data3, 0, 0xffffffff, 0xc0f3);
  vm.seg(Seg::ds) = null_segment(2);
  StackWriter stack{vm.cpu};
  ASSERT_TRUE(stack.push(sel::data3, 8) && stack.push(RingVm::kStack3, 8) && stack.push(sel::code64_3, 8) &&
              stack.push(0x12340, 8));
  vm.cpu.gpr[isa::rsp] = stack.rsp();
  EXPECT_EQ(vm.execute({0x48, 0xcb}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.selector(Seg::fs), 0);
  EXPECT_EQ(vm.selector(Seg::gs), 0);
  EXPECT_EQ(vm.selector(Seg::ds), 0);
  EXPECT_EQ(vm.selector(Seg::es), sel::data3);
  EXPECT_FALSE(vm.seg(Seg::fs).usable);
  EXPECT_EQ(vm.seg(Seg::fs).linear_base, 0x1234'5678'9000u);
  EXPECT_EQ(vm.seg(Seg::gs).linear_base, 0xffff'8800'0000'1000u);
}

TEST(FarCall, GateErrors) {
  RingVm vm{false};
  vm.ring3();
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code0, 0x7000, 0x8c));
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#13(0x68)") << "gate DPL 0";
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code0, 0x7000, 0x6c));
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#11(0x68)");
  vm.set(sel::gate, RingVm::gate_descriptor(sel::data0, 0x7000, 0xec));
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#13(0x10)");
  vm.set(sel::gate, RingVm::gate_descriptor(0, 0x7000, 0xec));
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#13(0x0)");
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code0, 0x7000, 0xec));
  EXPECT_EQ(far_jump(vm, sel::gate | 3), "#13(0x8)") << "JMP does not change the ring";
  vm.at<u16>(RingVm::kTss + 8) = 0;
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#10(0x0)") << "no inner stack";
  vm.at<u16>(RingVm::kTss + 8) = sel::small;
  vm.at<u32>(RingVm::kTss + 4) = 8;
  EXPECT_EQ(far_call(vm, sel::gate | 3), "#12(0xb8)") << "no room on it";
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.rsp(), RingVm::kStack3);
  EXPECT_EQ(vm.cpu.rip, 0x10000u);
}

TEST(FarCall, LongModeGate) {
  RingVm vm{true};
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code64_0, 0x7000, 0xec));
  vm.at<u64>(RingVm::kGdt + sel::gate + 8) = 0x10;  // bits 63:32 of the target
  vm.ring3();
  vm.at<u64>(0x8000) = u64{sel::gate | 3} << 32;
  EXPECT_EQ(vm.try_run({0xff, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "ok");
  EXPECT_EQ(vm.cpu.rip, 0x10'0000'7000u);
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.selector(Seg::ss), 0);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 32);
  EXPECT_EQ(vm.stack<u64>(0), 0x10007u);
  EXPECT_EQ(vm.stack<u64>(1), sel::code64_3);
  EXPECT_EQ(vm.stack<u64>(2), RingVm::kStack3);
  EXPECT_EQ(vm.stack<u64>(3), sel::data3);
  EXPECT_EQ(vm.try_run({0x48, 0xcb}), "ok");
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.rsp(), RingVm::kStack3);

  vm.at<u64>(RingVm::kGdt + sel::gate + 8) = u64{0x0c00} << 32;
  EXPECT_EQ(vm.try_run({0xff, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "#13(0x68)") << "type bits in the upper half";
  vm.at<u64>(0x8000) = u64{sel::tss} << 32;
  EXPECT_EQ(vm.try_run({0xff, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "#13(0x38)") << "no task switches";
}

TEST(FarReturn, Errors) {
  RingVm vm{false};
  const auto frame = [&](u32 ip, u32 cs, u32 sp = 0, u32 ss = 0) {
    const u32 items[4] = {ip, cs, sp, ss};
    std::memcpy(vm.ram.host(Gpa{RingVm::kStack0}), items, 16);
  };
  frame(0x100, 0);
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0x0)");
  frame(0x100, sel::data0);
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0x10)");
  frame(0x100, sel::code3 & ~3);
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0x30)") << "DPL is not RPL";
  frame(0x100, sel::code3, 0x4000, sel::data0);
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0x10)") << "the outer SS";
  frame(0x100, sel::code3, 0x4000, 0);
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0x0)");
  frame(0x100, sel::code16);
  vm.ring3();
  vm.cpu.gpr[isa::rsp] = RingVm::kStack0;
  EXPECT_EQ(vm.try_run({0xcb}), "#13(0xa8)") << "inwards";
  EXPECT_EQ(vm.rsp(), RingVm::kStack0);
}

// -- Frames over the end of what is mapped: which word is read first

std::string missing_at(isa::Vendor vendor, u64 room, std::initializer_list<u8> code, std::vector<u64> frame) {
  RingVm vm{true};
  const Cpuid policy = trapline::test::policy_of(vendor);
  vm.cpu.cpuid = &policy;
  vm.ring3();
  const u64 end = 16 * MiB, top = end - room;
  for (std::size_t i = 0; i < frame.size() && (i + 1) * 8 <= room; i++) vm.at<u64>(top + 8 * i) = frame[i];
  vm.cpu.gpr[isa::rsp] = top;
  const std::string fault = vm.try_run(code);
  return vm.cpu.fault.vector == Vector::pf ? fmt::format("#PF at +{}", vm.cpu.fault.cr2 - top) : fault;
}

TEST(FarReturn, FramesOverTheEndOfWhatIsMapped) {
  const auto ret = [](isa::Vendor v, u64 room, u64 cs) {
    return missing_at(v, room, {0x48, 0xca, 0x10, 0x00}, {0x100, cs});
  };
  for (const isa::Vendor v : trapline::test::kVendors) {
    const bool amd = v == isa::Vendor::amd;
    EXPECT_EQ(ret(v, 0, sel::code64_3), "#PF at +8");
    EXPECT_EQ(ret(v, 8, sel::code64_3), "#PF at +8");
    EXPECT_EQ(ret(v, 16, sel::code64_3), "ok");
    EXPECT_EQ(ret(v, 16, sel::data3), "#13(0x28)") << "its RPL is CPL";
    EXPECT_EQ(ret(v, 16, sel::code64_3 & ~3), amd ? "#PF at +40" : "#13(0x20)");
    EXPECT_EQ(ret(v, 48, sel::code64_3 & ~3), "#13(0x20)");
  }
}

TEST(Iret, FramesOverTheEndOfWhatIsMapped) {
  for (const isa::Vendor v : trapline::test::kVendors) {
    const bool amd = v == isa::Vendor::amd;
    const auto iret = [&](u64 room) { return missing_at(v, room, {0x48, 0xcf}, {0x100, 0, 2, 0, 0}); };
    EXPECT_EQ(iret(0), "#PF at +16");
    EXPECT_EQ(iret(16), "#PF at +16");
    EXPECT_EQ(iret(24), amd ? "#PF at +32" : "#PF at +24");
    EXPECT_EQ(iret(40), "#13(0x0)");
  }
}

// -- IRET

struct Iret64 : testing::Test {
  RingVm vm{true};
  void frame(u64 ip, u64 cs, u64 flags, u64 sp, u64 ss) {
    const u64 items[5] = {ip, cs, flags, sp, ss};
    vm.ring0();
    vm.cpu.gpr[isa::rsp] = RingVm::kStack0 - 40;
    std::memcpy(vm.ram.host(Gpa{RingVm::kStack0 - 40}), items, 40);
  }
  std::string iretq() { return vm.try_run({0x48, 0xcf}); }
};

TEST_F(Iret64, ToRing3) {
  frame(0x1234, sel::code64_3, kIf | flag::cf | flag::ac | flag::rf | flag::id | flag::iopl | flag::tf, 0x4321,
        sel::data3);
  EXPECT_EQ(iretq(), "ok");
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.cpu.rip, 0x1234u);
  EXPECT_EQ(vm.rsp(), 0x4321u);
  EXPECT_EQ(vm.selector(Seg::ss), sel::data3);
  EXPECT_EQ(vm.selector(Seg::ds), 0) << "ring 0's data segment is gone";
  EXPECT_EQ(vm.cpu.rflags(), 2u | kIf | flag::cf | flag::ac | flag::id | flag::iopl | flag::tf);
}

TEST_F(Iret64, ResumeFlagCountsWhileBreakpointsAreArmed) {
  vm.cpu.debug.dr7 |= 1;
  frame(0x1234, sel::code64_3, flag::rf, 0x4321, sel::data3);
  EXPECT_EQ(iretq(), "ok");
  EXPECT_TRUE(vm.cpu.rflags() & flag::rf);
}

TEST_F(Iret64, ToRing0WithANullStack) {
  frame(0x1234, sel::code64_0, 2, 0x4321, 0);
  EXPECT_EQ(iretq(), "ok");
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.selector(Seg::ss), 0);
  EXPECT_EQ(vm.rsp(), 0x4321u);
}

TEST_F(Iret64, ToCompatibilityMode) {
  frame(0x1234, sel::code3, 2, 0xffff'ffff'0000'4321, sel::data3);
  EXPECT_EQ(iretq(), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::compat32);
  EXPECT_EQ(vm.rsp(), 0x4321u);
}

TEST_F(Iret64, Errors) {
  frame(0x8000'0000'0000, sel::code64_3, 2, 0, sel::data3);
  EXPECT_EQ(iretq(), "#13(0x0)") << "non-canonical RIP";
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 40);
  frame(0, sel::code64_3, 2, 0, 0);
  EXPECT_EQ(iretq(), "#13(0x0)") << "null SS in ring 3";
  frame(0, sel::code64_3, 2, 0, sel::data0 | 3);
  EXPECT_EQ(iretq(), "#13(0x10)");
  frame(0, sel::data0, 2, 0, 0);
  EXPECT_EQ(iretq(), "#13(0x10)");
  frame(0, sel::code64_0, 2, 0, sel::data0);
  vm.set_flag(flag::nt, true);
  EXPECT_EQ(iretq(), "#13(0x0)") << "NT";
}

TEST_F(Iret64, RingThreeChangesNeitherIfNorIopl) {
  vm.ring3();
  const u64 items[5] = {0x99, sel::code64_3, kIf | flag::iopl | flag::vip | flag::df, 0x4000, sel::data3};
  std::memcpy(vm.ram.host(Gpa{RingVm::kStack3}), items, 40);
  EXPECT_EQ(iretq(), "ok");
  EXPECT_EQ(vm.cpu.rflags(), 2u | flag::df);
}

TEST(Iret, ToVirtual8086ModeAndInterruptBack) {
  RingVm vm{false};
  const u32 items[9] = {0x100, 0x1100, flag::vm | kIf | 2, 0x800, 0x1200, 0x1000, 0x1300, 0x1400, 0x1500};
  vm.cpu.gpr[isa::rsp] = RingVm::kStack0 - 36;
  std::memcpy(vm.ram.host(Gpa{RingVm::kStack0 - 36}), items, 36);
  EXPECT_EQ(vm.try_run({0xcf}), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::vm86);
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.cpu.rip, 0x100u);
  EXPECT_EQ(vm.seg(Seg::cs).linear_base, 0x11000u);
  EXPECT_EQ(vm.seg(Seg::gs).linear_base, 0x15000u);
  EXPECT_EQ(vm.seg(Seg::ss).linear_base, 0x12000u);
  EXPECT_EQ(vm.rsp(), 0x800u);
  EXPECT_EQ(vm.deliver(Vector::gp), Outcome::jumped);
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
  EXPECT_EQ(vm.stack(9), 0x1500u);
}

TEST(Iret, InVirtual8086ModeObeysIopl) {
  RingVm vm{false};
  vm.vm86(0);
  EXPECT_EQ(vm.try_run({0xcf}), "#13(0x0)");
  vm.vm86(3);
  const u16 items[3] = {0x42, 0x3000, static_cast<u16>(flag::cf)};
  std::memcpy(vm.ram.host(Gpa{0x12000 + 0x800}), items, 6);
  EXPECT_EQ(vm.try_run({0xcf}), "ok");
  EXPECT_EQ(vm.cpu.rip, 0x42u);
  EXPECT_EQ(vm.seg(Seg::cs).linear_base, 0x30000u);
  EXPECT_EQ(vm.cpu.rflags(), 2u | flag::cf | flag::vm | flag::iopl) << "IF is open, IOPL and VM are not";
  EXPECT_EQ(vm.rsp(), 0x806u);
}

TEST(Iret, ProtectedModeToTheOuterRingKeepsTheUpperHalfOfEspOnASmallStack) {
  RingVm vm{false};
  vm.set(sel::data16, RingVm::descriptor(0, 0xffff, 0x00f2));
  const u32 items[5] = {0x100, sel::code3, 2, 0x12345678, sel::data16 | 3};
  vm.cpu.gpr[isa::rsp] = RingVm::kStack0 - 20;
  std::memcpy(vm.ram.host(Gpa{RingVm::kStack0 - 20}), items, 20);
  EXPECT_EQ(vm.try_run({0xcf}), "ok");
  EXPECT_EQ(vm.rsp(), ((RingVm::kStack0 - 20) & 0xffff0000) | 0x5678);
}

// -- INT3, INTO, BOUND, UD

TEST(SoftwareInterrupts, Breakpoint) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 3) = RingVm::gate_descriptor(sel::code0, 0x3333, 0xef);
  vm.ring3();
  EXPECT_EQ(vm.execute({0xcc}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x3333u);
  EXPECT_EQ(vm.stack(0), 0x10001u) << "past the INT3";
}

TEST(SoftwareInterrupts, Int1IgnoresTheGatesPrivilege) {
  RingVm vm{false};
  vm.ring3();
  EXPECT_EQ(vm.execute({0xf1}), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 1);
}

TEST(SoftwareInterrupts, Overflow) {
  RingVm vm{false};
  EXPECT_EQ(vm.execute({0xce}), Outcome::next);
  vm.cpu.set_rflags_raw(2 | flag::of);
  EXPECT_EQ(vm.execute({0xce}), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 4);
  EXPECT_EQ(vm.stack(0), 0x10001u);
}

TEST(SoftwareInterrupts, Bound) {
  RingVm vm{false};
  vm.at<i32>(0x8000) = -5;
  vm.at<i32>(0x8004) = 5;
  const auto bound = [&](i32 index) {
    vm.cpu.gpr[isa::rax] = static_cast<u32>(index);
    return vm.try_run({0x62, 0x05, 0x00, 0x80, 0, 0});
  };
  EXPECT_EQ(bound(-5), "ok");
  EXPECT_EQ(bound(5), "ok");
  EXPECT_EQ(bound(6), "#5(0x0)");
  EXPECT_EQ(bound(-6), "#5(0x0)");
}

TEST(SoftwareInterrupts, Undefined) {
  RingVm vm{true};
  EXPECT_EQ(vm.try_run({0x0f, 0x0b}), "#6(0x0)");
}

// -- SYSCALL and friends

struct FastCalls : testing::Test {
  RingVm vm{true};
  Vcpu& cpu = vm.cpu;
  Cpuid policy = trapline::test::policy_of(isa::Vendor::intel);
  void be(isa::Vendor vendor) { policy = trapline::test::policy_of(vendor); }
  void SetUp() override {
    cpu.cpuid = &policy;
    cpu.efer |= efer::sce;
    cpu.msr.star = u64{0x23} << 48 | u64{0x10} << 32;
    cpu.msr.lstar = 0xffff'ffff'8100'0000;
    cpu.msr.fmask = kIf | flag::df | flag::ac;
    cpu.msr.sysenter_cs = 0x10;
    cpu.msr.sysenter_eip = 0xffff'ffff'8200'0000;
    cpu.msr.sysenter_esp = 0xffff'c900'0000'0000;
    vm.ring3();
  }
};

TEST_F(FastCalls, SyscallAndBack) {
  cpu.set_rflags_raw(2 | kIf | flag::cf | flag::ac);
  EXPECT_EQ(vm.execute({0x0f, 0x05}), Outcome::jumped);
  EXPECT_EQ(cpu.rip, cpu.msr.lstar);
  EXPECT_EQ(cpu.gpr[isa::rcx], 0x10002u);
  EXPECT_EQ(cpu.gpr[isa::r11], 2u | kIf | flag::cf | flag::ac);
  EXPECT_EQ(cpu.rflags(), 2u | flag::cf);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(vm.selector(Seg::cs), 0x10);
  EXPECT_EQ(vm.selector(Seg::ss), 0x18);
  EXPECT_EQ(vm.seg(Seg::cs).attr, 0xa09b);
  EXPECT_EQ(vm.seg(Seg::ss).attr, 0xc093);
  EXPECT_EQ(vm.rsp(), RingVm::kStack3) << "no stack switch";
  EXPECT_EQ(vm.execute({0x48, 0x0f, 0x07}), Outcome::jumped);
  EXPECT_EQ(cpu.rip, 0x10002u);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.rflags(), 2u | kIf | flag::cf | flag::ac);
  EXPECT_EQ(vm.selector(Seg::cs), 0x33);
  EXPECT_EQ(vm.selector(Seg::ss), 0x2b);
  EXPECT_EQ(vm.seg(Seg::cs).attr, 0xa0fb);
  EXPECT_EQ(cpu.mode, Mode::long64);
}

TEST_F(FastCalls, SysretToCompatibilityMode) {
  vm.ring0();
  cpu.gpr[isa::rcx] = 0xabc'0000'1234;
  cpu.gpr[isa::r11] = ~u64{flag::tf};  // (setting TF traps at once)
  EXPECT_EQ(vm.execute({0x0f, 0x07}), Outcome::jumped);
  EXPECT_EQ(cpu.mode, Mode::compat32);
  EXPECT_EQ(cpu.rip, 0x1234u);
  EXPECT_EQ(vm.selector(Seg::cs), 0x23);
  EXPECT_EQ(cpu.rflags(), 0x3c7fd7u & ~(flag::rf | flag::vm | flag::tf));
  EXPECT_EQ(vm.try_run({0x0f, 0x05}), "#6(0x0)") << "no SYSCALL from here on Intel";
}

TEST_F(FastCalls, Errors) {
  EXPECT_EQ(vm.try_run({0x48, 0x0f, 0x07}), "#13(0x0)") << "SYSRET in ring 3";
  vm.ring0();
  cpu.gpr[isa::rcx] = 0x8000'0000'0000;
  EXPECT_EQ(vm.try_run({0x48, 0x0f, 0x07}), "#13(0x0)") << "non-canonical, still in ring 0";
  EXPECT_EQ(cpu.cpl, 0);
  cpu.efer &= ~efer::sce;
  EXPECT_EQ(vm.try_run({0x0f, 0x05}), "#6(0x0)");
  cpu.msr.sysenter_cs = 3;
  EXPECT_EQ(vm.try_run({0x0f, 0x34}), "#13(0x0)");
  EXPECT_EQ(vm.try_run({0x0f, 0x35}), "#13(0x0)");
}

TEST_F(FastCalls, SysenterAndSysexit) {
  cpu.sys_flags |= kIf;
  EXPECT_EQ(vm.execute({0x0f, 0x34}), Outcome::jumped);
  EXPECT_EQ(cpu.rip, cpu.msr.sysenter_eip);
  EXPECT_EQ(vm.rsp(), cpu.msr.sysenter_esp);
  EXPECT_EQ(vm.selector(Seg::cs), 0x10);
  EXPECT_EQ(vm.selector(Seg::ss), 0x18);
  EXPECT_EQ(cpu.mode, Mode::long64);
  EXPECT_EQ(cpu.sys_flags & kIf, 0u);
  cpu.gpr[isa::rcx] = 0x7000;
  cpu.gpr[isa::rdx] = 0x6000;
  EXPECT_EQ(vm.execute({0x0f, 0x35}), Outcome::jumped);
  EXPECT_EQ(cpu.mode, Mode::compat32);
  EXPECT_EQ(vm.selector(Seg::cs), 0x23);
  EXPECT_EQ(vm.selector(Seg::ss), 0x2b);
  EXPECT_EQ(cpu.rip, 0x6000u);
  EXPECT_EQ(vm.rsp(), 0x7000u);
}

// AMD: the instruction completes, and the next fetch faults in ring 3.
TEST_F(FastCalls, SysretToANonCanonicalAddressOnAmd) {
  be(isa::Vendor::amd);
  vm.ring0();
  cpu.gpr[isa::rcx] = 0x8000'0000'0000;
  EXPECT_EQ(vm.execute({0x48, 0x0f, 0x07}), Outcome::jumped);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.rip, 0x8000'0000'0000u);
  EXPECT_EQ(fetch_page(cpu, Gva{cpu.rip}), nullptr);
  EXPECT_EQ(vm.fault_of(Outcome::fault), "#13(0x0)");
}

// AMD: neither exists in long mode, but SYSEXIT looks at the ring first.
TEST_F(FastCalls, SysenterAndSysexitInLongModeOnAmd) {
  be(isa::Vendor::amd);
  EXPECT_EQ(vm.try_run({0x0f, 0x34}), "#6(0x0)");
  EXPECT_EQ(vm.try_run({0x0f, 0x35}), "#13(0x0)");
  vm.ring0();
  EXPECT_EQ(vm.try_run({0x0f, 0x34}), "#6(0x0)");
  EXPECT_EQ(vm.try_run({0x0f, 0x35}), "#6(0x0)");
}

TEST_F(FastCalls, SysexitTo64Bit) {
  vm.ring0();
  cpu.gpr[isa::rcx] = 0x7000;
  cpu.gpr[isa::rdx] = 0x7fff'0000'6000;
  EXPECT_EQ(vm.execute({0x48, 0x0f, 0x35}), Outcome::jumped);
  EXPECT_EQ(vm.selector(Seg::cs), 0x33);
  EXPECT_EQ(vm.selector(Seg::ss), 0x3b);
  EXPECT_EQ(cpu.rip, 0x7fff'0000'6000u);
}

}  // namespace
}  // namespace trapline::cpu::test
