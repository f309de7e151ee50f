#include "cpu/task_switch.h"

#include <gtest/gtest.h>

#include "ring_vm.h"

namespace trapline::cpu::test {
namespace {

struct TaskVm : RingVm {
  TaskVm() : RingVm{false} {
    set(sel::tss2, descriptor(kTss2, 0x67, 0x0089));
    set(sel::tss16, descriptor(kTss16, 0x2b, 0x0081));
    set(sel::task_gate, gate_descriptor(sel::tss2, 0, 0xe5));
    fill32();
    for (unsigned i = 0; i < 8; i++)
      if (i != isa::rsp) cpu.gpr[i] = 0x100 + i;
    cpu.sys_flags = flag::if_;
  }
  // A ring-0 task in kTss2.
  void fill32() {
    u32* t = &at<u32>(kTss2);
    t[8] = 0x6000;        // EIP
    t[9] = 2 | flag::df;  // EFLAGS
    for (unsigned i = 0; i < 8; i++) t[10 + i] = 0xaaaa0000 + i;
    t[14] = kIst1;  // ESP
    const u16 segments[6] = {sel::data0, sel::code0, sel::data0, sel::data0, 0, sel::data3};
    for (unsigned i = 0; i < 6; i++) t[18 + i] = segments[i];
    t[24] = 0;  // LDT
    t[25] = 0;  // T
  }
  std::string jump(u16 s) { return try_run({0xea, 0, 0, 0, 0, static_cast<u8>(s), 0}); }
  std::string call(u16 s) { return try_run({0x9a, 0, 0, 0, 0, static_cast<u8>(s), 0}); }
};

TEST(TaskSwitchTest, Jump) {
  TaskVm vm;
  EXPECT_EQ(vm.jump(sel::tss2), "ok");
  EXPECT_EQ(vm.cpu.rip, 0x6000u);
  EXPECT_EQ(vm.cpu.gpr[isa::rdi], 0xaaaa0007u);
  EXPECT_EQ(vm.rsp(), RingVm::kIst1);
  EXPECT_EQ(vm.cpu.rflags(), 2u | flag::df);
  EXPECT_EQ(vm.cpu.tr.selector, sel::tss2);
  EXPECT_EQ(vm.cpu.tr.base, RingVm::kTss2);
  EXPECT_EQ(vm.cpu.tr.type(), 0xb);
  EXPECT_EQ(vm.access(sel::tss2), 0x8b) << "busy";
  EXPECT_EQ(vm.access(sel::tss), 0x89) << "available again";
  EXPECT_TRUE(vm.cpu.cr0 & cr0::ts);
  EXPECT_EQ(vm.selector(Seg::gs), sel::data3);
  EXPECT_FALSE(vm.seg(Seg::fs).usable);
  // What was saved.
  const u32* old = &vm.at<u32>(RingVm::kTss);
  EXPECT_EQ(old[8], 0x10007u);
  EXPECT_EQ(old[9], 2u | flag::if_);
  EXPECT_EQ(old[10 + isa::rdx], 0x102u);
  EXPECT_EQ(old[10 + isa::rsp], RingVm::kStack0);
  EXPECT_EQ(old[18 + 1], sel::code0);
}

TEST(TaskSwitchTest, CallNestsAndIretReturns) {
  TaskVm vm;
  EXPECT_EQ(vm.call(sel::tss2), "ok");
  EXPECT_TRUE(vm.cpu.sys_flags & flag::nt);
  EXPECT_EQ(vm.at<u16>(RingVm::kTss2), sel::tss);
  EXPECT_EQ(vm.access(sel::tss), 0x8b) << "still busy";
  vm.cpu.gpr[isa::rax] = 0x5555;
  EXPECT_EQ(vm.try_run({0xcf}), "ok");
  EXPECT_EQ(vm.cpu.rip, 0x10007u);
  EXPECT_EQ(vm.cpu.tr.selector, sel::tss);
  EXPECT_EQ(vm.cpu.gpr[isa::rdx], 0x102u);
  EXPECT_EQ(vm.cpu.rflags(), 2u | flag::if_);
  EXPECT_EQ(vm.access(sel::tss2), 0x89);
  EXPECT_EQ(vm.access(sel::tss), 0x8b);
  const u32* nested = &vm.at<u32>(RingVm::kTss2);
  EXPECT_EQ(nested[8], 0x6001u);
  EXPECT_EQ(nested[9] & flag::nt, 0u) << "IRET saves NT as 0";
  EXPECT_EQ(nested[10], 0x5555u);
}

TEST(TaskSwitchTest, InterruptThroughATaskGatePushesTheErrorCode) {
  TaskVm vm;
  vm.at<u64>(RingVm::kIdt + 8 * 8) = RingVm::gate_descriptor(sel::tss2, 0, 0x85);
  vm.at<u64>(RingVm::kIdt + 8 * 13) = 0;
  EXPECT_EQ(vm.deliver(Vector::gp, 0x10), Outcome::jumped) << "a double fault's own task";
  EXPECT_EQ(vm.cpu.rip, 0x6000u);
  EXPECT_EQ(vm.rsp(), RingVm::kIst1 - 4);
  EXPECT_EQ(vm.stack(0), 0u);
  EXPECT_TRUE(vm.cpu.sys_flags & flag::nt);
  EXPECT_EQ(vm.at<u32>(RingVm::kTss + 0x20), 0x10000u) << "the faulting instruction";
}

TEST(TaskSwitchTest, SixteenBitTask) {
  TaskVm vm;
  u16* t = &vm.at<u16>(RingVm::kTss16);
  t[7] = 0x6000;
  t[8] = 2 | flag::df;
  for (unsigned i = 0; i < 8; i++) t[9 + i] = static_cast<u16>(0xbb00 + i);
  t[17] = sel::data0, t[18] = sel::code16, t[19] = sel::data16, t[20] = sel::data0, t[21] = 0;
  EXPECT_EQ(vm.call(sel::tss16), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::protected16);
  EXPECT_EQ(vm.cpu.rip, 0x6000u);
  EXPECT_EQ(vm.cpu.gpr[isa::rcx] & 0xffff, 0xbb01u);
  EXPECT_EQ(vm.selector(Seg::fs), 0);
  EXPECT_EQ(vm.try_run({0xcf}), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
  EXPECT_EQ(t[7], 0x6001);
  EXPECT_EQ(t[9 + isa::rcx], 0xbb01);
}

TEST(TaskSwitchTest, IntoVirtual8086Mode) {
  TaskVm vm;
  u32* t = &vm.at<u32>(RingVm::kTss2);
  t[8] = 0x100;
  t[9] = 2 | flag::vm | flag::if_;
  for (unsigned i = 0; i < 6; i++) t[18 + i] = 0x1000 + 0x100 * i;
  EXPECT_EQ(vm.jump(sel::tss2), "ok");
  EXPECT_EQ(vm.cpu.mode, Mode::vm86);
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.seg(Seg::cs).linear_base, 0x11000u);
  EXPECT_EQ(vm.seg(Seg::gs).limit, 0xffffu);
}

TEST(TaskSwitchTest, LoadsCr3AndLdt) {
  TaskVm vm;
  vm.enter_32();
  vm.map_32(0, 0, static_cast<u32>(pte::p | pte::w | pte::u), 1);
  const u64 other = vm.new_table();
  vm.at<u32>(other) = vm.at<u32>(vm.cpu.cr3);
  vm.ring0();
  vm.at<u32>(RingVm::kTss2 + 0x1c) = static_cast<u32>(other);
  vm.at<u32>(RingVm::kTss2 + 0x60) = sel::ldt;
  EXPECT_EQ(vm.jump(sel::tss2), "ok");
  EXPECT_EQ(vm.cpu.cr3, other);
  EXPECT_EQ(vm.cpu.ldtr.selector, sel::ldt);
  EXPECT_EQ(vm.cpu.ldtr.base, RingVm::kLdt);
}

TEST(TaskSwitchTest, ErrorsBeforeTheCommitPointChangeNothing) {
  TaskVm vm;
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x66, 0x0089));
  EXPECT_EQ(vm.jump(sel::tss2), "#10(0x48)") << "one byte short";
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x0009));
  EXPECT_EQ(vm.jump(sel::tss2), "#11(0x48)");
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x008b));
  EXPECT_EQ(vm.jump(sel::tss2), "#13(0x48)") << "busy";
  EXPECT_EQ(vm.jump(sel::task_gate), "#13(0x48)") << "likewise behind a gate";
  vm.set(sel::task_gate, RingVm::gate_descriptor(sel::data0, 0, 0xe5));
  EXPECT_EQ(vm.jump(sel::task_gate), "#13(0x10)");
  vm.set_flag(flag::nt, true);
  vm.at<u16>(RingVm::kTss) = sel::data0;
  EXPECT_EQ(vm.try_run({0xcf}), "#10(0x10)") << "the link names no task";
  EXPECT_EQ(vm.cpu.tr.selector, sel::tss);
  EXPECT_EQ(vm.cpu.rip, 0x10000u);
  EXPECT_EQ(vm.access(sel::tss), 0x8b);
}

TEST(TaskSwitchTest, ErrorsPastTheCommitPointAreTheNewTasks) {
  const auto attempt = [](unsigned item, u32 value) {
    TaskVm vm;
    (&vm.at<u32>(RingVm::kTss2))[item] = value;
    const std::string fault = vm.jump(sel::tss2);
    EXPECT_EQ(vm.cpu.tr.selector, sel::tss2);
    EXPECT_EQ(vm.cpu.gpr[isa::rdi], 0xaaaa0007u);
    EXPECT_EQ(vm.access(sel::tss), 0x89);
    return fault;
  };
  EXPECT_EQ(attempt(24, sel::data0), "#10(0x10)") << "LDT";
  EXPECT_EQ(attempt(19, 0), "#10(0x0)") << "null CS";
  EXPECT_EQ(attempt(19, sel::data0), "#10(0x10)");
  EXPECT_EQ(attempt(19, sel::code0 | 3), "#10(0x8)") << "RPL is not DPL";
  EXPECT_EQ(attempt(20, sel::data3), "#10(0x28)") << "SS of another ring";
  EXPECT_EQ(attempt(20, sel::absent), "#12(0x88)");
  EXPECT_EQ(attempt(21, sel::absent), "#11(0x88)");
  EXPECT_EQ(attempt(21, sel::execute_only), "#10(0xa0)");
}

TEST(TaskSwitchTest, DebugTrapBit) {
  TaskVm vm;
  vm.at<u8>(RingVm::kTss2 + 0x64) = 1;
  vm.cpu.debug.dr7 |= 0x155 | 2;
  EXPECT_EQ(vm.jump(sel::tss2), "ok");
  EXPECT_EQ(vm.handler(), 1);
  EXPECT_EQ(vm.stack(0), 0x6000u) << "before the new task's first instruction";
  EXPECT_TRUE(vm.cpu.debug.dr6 & dr6::bt);
  EXPECT_EQ(vm.cpu.debug.dr7 & 0x155, 0u) << "local breakpoints are the old task's";
  EXPECT_TRUE(vm.cpu.debug.dr7 & 2);
}

}  // namespace
}  // namespace trapline::cpu::test
