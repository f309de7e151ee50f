#include "core/debug_registers.h"

#include <gtest/gtest.h>

#include <cstring>

namespace trapline::core {
namespace {

using cpu::Seg;

struct CoreDebugRegisters : testing::Test {
  cpu::Vcpu cpu;
  cpu::Segment& seg(Seg s) { return cpu.segment(s); }

  CoreDebugRegisters() {
    for (auto& s : cpu.seg) s.usable = true, s.attr = 0xc093, s.limit = 0xffffffff;
    cpu.set_rflags_raw(2);
    cpu::update_mode(cpu);
  }
  void enter_long() {
    cpu.cr0 |= cpu::cr0::pe | cpu::cr0::pg;
    cpu.efer = cpu::efer::lme | cpu::efer::lma;
    seg(Seg::cs).attr = 0xa09b;
    cpu::update_mode(cpu);
    ASSERT_TRUE(cpu.in_long64());
  }
};

TEST_F(CoreDebugRegisters, PcIsLinearInSegmentedCode) {
  seg(Seg::cs).base = 0xf0000;
  cpu::update_mode(cpu);
  cpu.rip = 0xfff0;
  channel::DebugRegisters r = read_registers(cpu);
  EXPECT_EQ(r.pc, Gva{0xffff0});
  EXPECT_EQ(r.rip, 0xfff0u);
  r.pc = Gva{0xf1234};
  write_registers(cpu, r);
  EXPECT_EQ(cpu.rip, 0x1234u);
}

TEST_F(CoreDebugRegisters, WhatIsReadCanBeWrittenBack) {
  enter_long();
  for (unsigned i = 0; i < 16; i++) cpu.gpr[i] = u64{0x1111111111111111} * i;
  cpu.rip = 0xffffffff81000000;
  cpu.set_rflags_raw(0x246);
  const channel::DebugRegisters before = read_registers(cpu);
  write_registers(cpu, before);
  const channel::DebugRegisters after = read_registers(cpu);
  EXPECT_EQ(static_cast<const cpu::ArchState&>(before), after);
  EXPECT_EQ(before.pc, after.pc);
  EXPECT_EQ(before.eflags, after.eflags);
}

TEST_F(CoreDebugRegisters, NothingWrittenCanHurtTheCore) {
  enter_long();
  channel::DebugRegisters r = read_registers(cpu);
  r.vec.mxcsr = 0xffffffff;
  r.eflags = ~u64{0};
  r.seg[static_cast<u8>(Seg::fs)].linear_base = 0x0000800000000000;  // not canonical
  r.seg[static_cast<u8>(Seg::gs)].linear_base = 0xffff888000000000;
  r.msr.kernel_gs_base = u64{1} << 63;
  r.cr0 = r.cr3 = r.efer = ~u64{0};
  r.seg[1].selector = 0xffff;
  const u64 cr0 = cpu.cr0, efer = cpu.efer;
  write_registers(cpu, r);
  EXPECT_EQ(cpu.vec.mxcsr, 0xffffu);
  EXPECT_FALSE(cpu.rflags() & cpu::flag::vm);
  EXPECT_EQ(seg(Seg::fs).base, 0u);
  EXPECT_EQ(seg(Seg::gs).base, 0xffff888000000000u);
  EXPECT_EQ(seg(Seg::gs).linear_base, 0xffff888000000000u);
  EXPECT_EQ(cpu.msr.kernel_gs_base, 0u);
  EXPECT_EQ(cpu.cr0, cr0);
  EXPECT_EQ(cpu.efer, efer);
  EXPECT_EQ(cpu.cr3, 0u);
  EXPECT_EQ(seg(Seg::cs).selector, 0u);
}

TEST_F(CoreDebugRegisters, NewPcWakesAHaltedVcpu) {
  cpu.activity = cpu::Activity::halted;
  channel::DebugRegisters r = read_registers(cpu);
  write_registers(cpu, r);
  EXPECT_EQ(cpu.activity, cpu::Activity::halted);
  r.pc = r.pc.wrapping_add(1);
  write_registers(cpu, r);
  EXPECT_EQ(cpu.activity, cpu::Activity::running);
}

}  // namespace
}  // namespace trapline::core
