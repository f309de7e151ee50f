#include "cpu/semantics.h"

#include <gtest/gtest.h>

#include "bare_vm.h"

namespace trapline::cpu::test {
namespace {

// -- MOV CR

TEST(ControlRegisters, Cr0Combinations) {
  BareVm vm;
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, cr0::pg)), "#GP(0x0)");
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, cr0::pe | cr0::nw)), "#GP(0x0)");
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, u64{1} << 32)), "#GP(0x0)");
  EXPECT_TRUE(write_cr0(vm.cpu, cr0::pe));
  EXPECT_EQ(vm.cpu.cr0, cr0::pe | cr0::et) << "ET is fixed";
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
}

TEST(ControlRegisters, EnteringAndLeavingLongMode) {
  BareVm vm;
  vm.seg(Seg::cs) = BareVm::flat(0xc09b);
  ASSERT_TRUE(write_cr0(vm.cpu, cr0::pe));
  vm.cpu.efer = efer::lme;
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, cr0::pe | cr0::pg)), "#GP(0x0)") << "without PAE";
  ASSERT_TRUE(write_cr4(vm.cpu, cr4::pae));
  vm.cpu.tr.attr = 0x83;
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, cr0::pe | cr0::pg)), "#GP(0x0)") << "16-bit TSS";
  vm.cpu.tr.attr = 0x8b;
  ASSERT_TRUE(write_cr0(vm.cpu, cr0::pe | cr0::pg));
  EXPECT_TRUE(vm.cpu.efer & efer::lma);
  EXPECT_EQ(vm.cpu.mode, Mode::compat32);
  EXPECT_EQ(vm.outcome(write_cr4(vm.cpu, 0)), "#GP(0x0)") << "PAE is needed";
  vm.seg(Seg::cs) = BareVm::flat(0xa09b);
  update_mode(vm.cpu);
  EXPECT_EQ(vm.cpu.mode, Mode::long64);
  EXPECT_EQ(vm.cpu.linear_mask, ~u64{0});
  EXPECT_EQ(vm.outcome(write_cr0(vm.cpu, cr0::pe)), "#GP(0x0)");
  vm.seg(Seg::cs) = BareVm::flat(0xc09b);
  update_mode(vm.cpu);
  ASSERT_TRUE(write_cr0(vm.cpu, cr0::pe));
  EXPECT_FALSE(vm.cpu.efer & efer::lma);
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
}

TEST(ControlRegisters, Cr3AndCr4Checks) {
  BareVm vm;
  vm.enter_long64();
  EXPECT_EQ(vm.outcome(write_cr3(vm.cpu, u64{1} << 60)), "#GP(0x0)");
  EXPECT_EQ(vm.outcome(write_cr3(vm.cpu, vm.cpu.cr3 | u64{1} << 63)), "#GP(0x0)") << "without PCIDE bit 63 is reserved";
  vm.cpu.cr3 |= 5;
  EXPECT_EQ(vm.outcome(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::pcide)), "#GP(0x0)") << "CR3[11:0] must be 0";
  vm.cpu.cr3 &= ~u64{0xfff};
  EXPECT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::pcide));
  EXPECT_EQ(vm.outcome(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::la57)), "#GP(0x0)");
  EXPECT_EQ(vm.outcome(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::vme)), "#GP(0x0)");
}

TEST(ControlRegisters, MovCrInstruction) {
  BareVm vm;
  vm.enter_long64();
  vm.cpu.cr2 = 0xffff800000001234;
  EXPECT_EQ(vm.run({0x0f, 0x20, 0xd1}), "ok");  // mov rcx, cr2
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 0xffff800000001234u);
  vm.cpu.gpr[isa::rax] = 16;
  EXPECT_EQ(vm.run({0x44, 0x0f, 0x22, 0xc0}), "#GP(0x0)");  // mov cr8, rax
  vm.cpu.gpr[isa::rax] = 15;
  EXPECT_EQ(vm.run({0x44, 0x0f, 0x22, 0xc0}), "ok");
  EXPECT_EQ(vm.run({0x0f, 0x20, 0xc8}), "#UD(0x0)");  // cr1
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0x0f, 0x20, 0xd1}), "#GP(0x0)");
}

TEST(ControlRegisters, CltsClearsTs) {
  BareVm vm;
  vm.cpu.cr0 |= cr0::ts;
  EXPECT_EQ(vm.run({0x0f, 0x06}), "ok");
  EXPECT_FALSE(vm.cpu.cr0 & cr0::ts);
}

// -- MOV DR

TEST(DebugRegisters, FixedBitsAndAliases) {
  BareVm vm;
  vm.enter_long64();
  vm.cpu.gpr[isa::rax] = 0xffffffff;
  EXPECT_EQ(vm.run({0x0f, 0x23, 0xf0}), "ok");  // mov dr6, rax
  EXPECT_EQ(vm.cpu.debug.dr6, 0xffffeffful & ~u64{0} & (0xffff0ff0u | 0xe00f));
  vm.cpu.gpr[isa::rax] = 0;
  EXPECT_EQ(vm.run({0x0f, 0x23, 0xf8}), "ok");  // mov dr7, rax
  EXPECT_EQ(vm.cpu.debug.dr7, 0x400u);
  EXPECT_EQ(vm.run({0x0f, 0x21, 0xe9}), "ok");  // mov rcx, dr5
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 0x400u);
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::de));
  EXPECT_EQ(vm.run({0x0f, 0x21, 0xe9}), "#UD(0x0)");
  vm.cpu.gpr[isa::rax] = u64{1} << 32;
  EXPECT_EQ(vm.run({0x0f, 0x23, 0xf8}), "#GP(0x0)");
}

TEST(DebugRegisters, GeneralDetect) {
  BareVm vm;
  vm.cpu.debug.dr7 = 0x2400;
  EXPECT_EQ(vm.run({0x0f, 0x21, 0xc0}), "#DB(0x0)");
  EXPECT_EQ(vm.cpu.fault.dr6, 0x2000u);
  EXPECT_EQ(vm.run({0x0f, 0x21, 0xc0}), "ok") << "the handler may use them";
}

TEST(DebugRegisters, ArmedDataBreakpointForcesTheSlowPath) {
  BareVm vm;
  vm.enter_long64();
  vm.cpu.gpr[isa::rax] = 0x00010001;
  ASSERT_EQ(vm.run({0x0f, 0x23, 0xf8}), "ok");
  EXPECT_EQ(vm.cpu.need_read, perm::never);
  vm.cpu.gpr[isa::rax] = 1;  // an instruction breakpoint: data accesses are not affected
  ASSERT_EQ(vm.run({0x0f, 0x23, 0xf8}), "ok");
  EXPECT_EQ(vm.cpu.need_read, perm::kernel_ac_read);
}

// -- Flags

struct Flags : testing::Test {
  BareVm vm;
  void SetUp() override {
    vm.enter_long64();
    vm.map64(0x10000, 0x10000, pte::p | pte::w | pte::u);
    vm.cpu.gpr[isa::rsp] = 0x10800;
  }
  u32 popf(u64 value, std::initializer_list<u8> code = {0x9d}) {
    vm.at<u64>(0x10800) = value;
    vm.cpu.gpr[isa::rsp] = 0x10800;
    EXPECT_EQ(vm.run(code), "ok");
    return vm.cpu.rflags();
  }
};

TEST_F(Flags, PopfByPrivilege) {
  constexpr u32 all = 0xffffffff;
  EXPECT_EQ(popf(all), 0x247fd7u) << "CPL 0: all but VM, RF, VIF, VIP";
  EXPECT_EQ(popf(0), 2u);
  vm.set_cpl(3);
  EXPECT_EQ(popf(all), 0x244dd7u) << "CPL 3, IOPL 0: neither IF nor IOPL";
  vm.cpu.set_rflags_raw(flag::iopl);
  update_mode(vm.cpu);
  EXPECT_EQ(popf(all), 0x247fd7u) << "CPL <= IOPL: IF; IOPL stays";
  EXPECT_EQ(popf(0), 0x3002u);
  vm.cpu.set_rflags_raw(flag::ac | flag::iopl);
  EXPECT_EQ(popf(0, {0x66, 0x9d}), 0x43002u) << "16 bits: the upper half stays";
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0x10802u);
}

TEST_F(Flags, PopfThatFaultsChangesNothing) {
  vm.cpu.gpr[isa::rsp] = 0x20000;
  EXPECT_EQ(vm.run({0x9d}), "#PF(0x0) at 0x20000");
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0x20000u);
  EXPECT_EQ(vm.cpu.rflags(), 2u);
}

TEST_F(Flags, PushfHidesRfAndVm) {
  vm.cpu.set_rflags_raw(0x10ad7);
  EXPECT_EQ(vm.run({0x9c}), "ok");
  EXPECT_EQ(vm.at<u64>(0x107f8), 0xad7u);
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0x107f8u);
}

TEST_F(Flags, CliAndStiObeyIopl) {
  EXPECT_EQ(vm.run({0xfb}), "ok");
  EXPECT_TRUE(vm.cpu.sys_flags & flag::if_);
  EXPECT_TRUE(vm.cpu.interrupt_shadow);
  vm.cpu.interrupt_shadow = false;
  EXPECT_EQ(vm.run({0xfb}), "ok");
  EXPECT_FALSE(vm.cpu.interrupt_shadow) << "IF was set before";
  EXPECT_EQ(vm.run({0xfa}), "ok");
  EXPECT_FALSE(vm.cpu.sys_flags & flag::if_);
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0xfa}), "#GP(0x0)");
  EXPECT_EQ(vm.run({0xfb}), "#GP(0x0)");
  vm.cpu.sys_flags |= flag::iopl;
  EXPECT_EQ(vm.run({0xfb}), "ok");
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xcb}), "#UD(0x0)") << "STAC at CPL 3";
}

TEST(FlagsVm86, IoplDecides) {
  BareVm vm;
  ASSERT_TRUE(write_cr0(vm.cpu, cr0::pe));
  for (Segment& s : vm.cpu.seg) s = BareVm::flat(0xf3), s.limit = 0xffff;
  vm.set_flag(flag::vm, true);
  vm.set_cpl(3);
  ASSERT_EQ(vm.cpu.mode, Mode::vm86);
  for (u8 op : {0x9c, 0x9d, 0xfa, 0xfb}) EXPECT_EQ(vm.run({op}), "#GP(0x0)") << int{op};
  vm.set_flag(flag::iopl, true);
  vm.cpu.gpr[isa::rsp] = 0x1000;
  EXPECT_EQ(vm.run({0x9c}), "ok");
  EXPECT_EQ(vm.at<u16>(0xffe), 0x3002);
  EXPECT_EQ(vm.run({0xfb}), "ok");
  vm.at<u16>(0xffe) = 0;
  EXPECT_EQ(vm.run({0x9d}), "ok");
  EXPECT_EQ(vm.cpu.rflags(), flag::vm | flag::iopl | 2) << "IOPL and VM stay";
}

// -- The rest

TEST(Control, HltAdvancesAndHalts) {
  BareVm vm;
  vm.cpu.rip = 0x100;
  EXPECT_EQ(vm.run({0xf4}), "halt");
  EXPECT_EQ(vm.cpu.rip, 0x101u);
  EXPECT_EQ(vm.cpu.activity, Activity::halted);
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0xf4}), "#GP(0x0)");
}

TEST(Control, PauseCountsTheRoundsOfASpin) {
  BareVm vm;
  const auto pause_after = [&](u64 instructions) {
    vm.cpu.retired += instructions;
    EXPECT_EQ(vm.run({0xf3, 0x90}), "ok");
    return vm.cpu.pauses;
  };
  pause_after(1000);
  EXPECT_EQ(vm.cpu.pauses, 0u);
  for (u32 round = 1; round < 600; round++) ASSERT_EQ(pause_after(4), round) << "and steps aside now and then";
  EXPECT_EQ(pause_after(100), 0u) << "work between two of them is no spin";
}

TEST(Control, ResetForgetsWhatWasWaiting) {
  BareVm vm;
  for (const bool init : {false, true}) {
    vm.cpu.interrupt_waiting = vm.cpu.nmi_waiting = vm.cpu.nmi_blocked = vm.cpu.interrupt_shadow = true;
    reset(vm.cpu, init);
    EXPECT_FALSE(vm.cpu.interrupt_waiting || vm.cpu.nmi_waiting || vm.cpu.nmi_blocked || vm.cpu.interrupt_shadow);
  }
}

TEST(Control, InvlpgUsesTheSegmentBase) {
  BareVm vm;
  vm.enter_long64();
  u64& e = vm.map64(0x401000, 0x200000, pte::p);
  ASSERT_EQ(vm.try_read(0x401000), "ok");
  e = 0;
  vm.seg(Seg::fs).base = 0x1000;
  update_mode(vm.cpu);
  vm.cpu.gpr[isa::rax] = 0x400010;
  EXPECT_EQ(vm.run({0x64, 0x0f, 0x01, 0x38}), "ok");
  EXPECT_EQ(vm.try_read(0x401000), "#PF(0x0) at 0x401000");
  vm.cpu.gpr[isa::rax] = 0x800000000000;
  EXPECT_EQ(vm.run({0x0f, 0x01, 0x38}), "ok") << "not canonical: nothing to do";
}

TEST(Control, Xcr0) {
  BareVm vm;
  vm.cpu.gpr[isa::rcx] = 0;
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xd0}), "#UD(0x0)");
  vm.cpu.cr4 |= cr4::osxsave;
  const auto set = [&](u64 value) {
    vm.cpu.gpr[isa::rdx] = 0, vm.cpu.gpr[isa::rax] = value;
    return vm.run({0x0f, 0x01, 0xd1});
  };
  EXPECT_EQ(set(7), "ok");
  EXPECT_EQ(vm.cpu.xcr0, 7u);
  EXPECT_EQ(set(6), "#GP(0x0)") << "x87 cannot be off";
  EXPECT_EQ(set(5), "#GP(0x0)") << "AVX needs SSE";
  EXPECT_EQ(set(0x27), "#GP(0x0)") << "AVX-512 goes as a whole";
  EXPECT_EQ(set(0xe3), "#GP(0x0)");
  EXPECT_EQ(set(0xe7), "ok");
  EXPECT_EQ(set(0x107), "#GP(0x0)");
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xd0}), "ok");
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0xe7u);
  vm.cpu.gpr[isa::rcx] = 2;
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xd0}), "#GP(0x0)");
}

TEST(Control, HiddenFeaturesAreUndefined) {
  BareVm vm;
  vm.enter_long64();
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xee}), "#UD(0x0)");  // rdpkru
  EXPECT_EQ(vm.run({0x0f, 0x01, 0xc2}), "#UD(0x0)");  // vmlaunch
  EXPECT_EQ(vm.run({0x0f, 0x0b}), "#UD(0x0)");        // ud2
}

TEST(Control, TheTableTellsFarFromNear) {
  const auto find = [](isa::CodeSize size, std::vector<u8> bytes) {
    isa::Insn insn;
    EXPECT_EQ(isa::decode(bytes.data(), bytes.size(), size, isa::host_vendor(), insn), isa::DecodeStatus::ok);
    return find_semantic(insn);
  };
  using enum isa::CodeSize;
  EXPECT_EQ(find(bits64, {0xff, 0x18}), sem::far_call);
  EXPECT_EQ(find(bits64, {0x48, 0xff, 0x28}), sem::far_jmp);
  EXPECT_EQ(find(bits32, {0x66, 0xff, 0x28}), sem::far_jmp);
  EXPECT_EQ(find(bits32, {0xff, 0x20}), nullptr);
  EXPECT_EQ(find(bits32, {0x66, 0xff, 0x20}), nullptr);
  EXPECT_EQ(find(bits16, {0x9a, 0, 0, 0, 0}), sem::far_call);
  EXPECT_EQ(find(bits64, {0x48, 0xcb}), sem::far_ret);
  EXPECT_EQ(find(bits64, {0xf3, 0xc3}), nullptr);
  EXPECT_EQ(find(bits32, {0x1e}), sem::push_seg);
  EXPECT_EQ(find(bits32, {0x50}), nullptr);
  EXPECT_EQ(find(bits64, {0x8c, 0xd8}), sem::mov_from_seg);
  EXPECT_EQ(find(bits64, {0x89, 0xd8}), nullptr);
}

// -- Operands

TEST(Operands, EffectiveAddressesWrapAtTheAddressSize) {
  BareVm vm;
  isa::MemOperand m;
  m.base = isa::rbx, m.index = isa::rsi, m.scale_log2 = 2, m.disp = -4;
  vm.cpu.gpr[isa::rbx] = 0xfffffff0, vm.cpu.gpr[isa::rsi] = 8;
  m.address_bytes = 4;
  EXPECT_EQ(effective_address(vm.cpu, m, 0), 0xcu);
  m.address_bytes = 8;
  EXPECT_EQ(effective_address(vm.cpu, m, 0), 0x10000000cu);
  m.address_bytes = 2;
  EXPECT_EQ(effective_address(vm.cpu, m, 0), 0xcu);
  isa::MemOperand rip;
  rip.base = isa::kRegRip, rip.disp = -16;
  EXPECT_EQ(effective_address(vm.cpu, rip, 0x1000), 0xff0u);
}

TEST(Operands, RegistersOfAnyWidth) {
  BareVm vm;
  isa::Insn insn;
  isa::Operand op;
  op.kind = isa::Operand::Kind::gpr;
  op.reg = isa::rbx;
  vm.cpu.gpr[isa::rbx] = 0x1122334455667788;
  const auto after = [&](u16 bytes, bool high, u64 value) {
    op.bytes = bytes, op.high8 = high;
    EXPECT_TRUE(store_operand(vm.cpu, insn, op, value));
    return vm.cpu.gpr[isa::rbx];
  };
  EXPECT_EQ(after(1, true, 0xaa), 0x112233445566aa88u);
  EXPECT_EQ(after(2, false, 0xbbbb), 0x112233445566bbbbu);
  u64 v = 0;
  op.bytes = 1, op.high8 = true;
  EXPECT_TRUE(load_operand(vm.cpu, insn, op, &v));
  EXPECT_EQ(v, 0xbbu);
  EXPECT_EQ(after(4, false, 0xffffffffcccccccc), 0xccccccccu);
}

}  // namespace
}  // namespace trapline::cpu::test
