#include "cpu/events.h"

#include <gtest/gtest.h>

#include "cpu/lapic.h"
#include "ring_vm.h"

namespace trapline::cpu::test {
namespace {

constexpr u32 kIf = flag::if_;

// -- Real-address mode

struct RealVm : BareVm {
  RealVm() {
    for (Segment& s : cpu.seg) s = RingVm::segment(0, 0, 0xffff, 0x93);
    cpu.seg[1] = RingVm::segment(0x1000, 0x10000, 0xffff, 0x9b);
    cpu.idtr = {0, 0x3ff};
    cpu.gpr[isa::rsp] = 0x8000;
    cpu.rip = 0x1234;
    update_mode(cpu);
    at<u32>(0x21 * 4) = 0x2000'0056;
  }
};

TEST(RealMode, InterruptPushesSixBytes) {
  RealVm vm;
  vm.cpu.sys_flags |= kIf | flag::tf | flag::df;
  EXPECT_EQ(vm.execute({0xcd, 0x21}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x56u);
  EXPECT_EQ(vm.seg(Seg::cs).selector, 0x2000);
  EXPECT_EQ(vm.seg(Seg::cs).base, 0x20000u);
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0x7ffau);
  EXPECT_EQ(vm.at<u16>(0x7ffa), 0x1236);
  EXPECT_EQ(vm.at<u16>(0x7ffc), 0x1000);
  EXPECT_EQ(vm.at<u16>(0x7ffe), 2 | kIf | flag::tf | flag::df);
  EXPECT_EQ(vm.cpu.sys_flags, flag::df);
}

TEST(RealMode, StackPointerWrapsWithinSixteenBits) {
  RealVm vm;
  vm.cpu.gpr[isa::rsp] = 0xabcd0002;
  EXPECT_EQ(vm.execute({0xcd, 0x21}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0xabcdfffcu);
  EXPECT_EQ(vm.at<u16>(0xfffc), 0x1236);
  EXPECT_EQ(vm.at<u16>(0), 2);
}

TEST(RealMode, BeyondTheTableEscalatesToShutdown) {
  RealVm vm;
  vm.cpu.idtr.limit = 0x20 * 4;
  vm.at<u32>(13 * 4) = 0x3000'0000;
  EXPECT_EQ(vm.execute({0xcd, 0x21}), Outcome::jumped) << "#GP handler";
  EXPECT_EQ(vm.seg(Seg::cs).selector, 0x3000);
  EXPECT_EQ(vm.at<u16>(vm.cpu.gpr[isa::rsp]), 0x1234) << "the INT itself; no error code";
  vm.cpu.idtr.limit = 0;
  EXPECT_EQ(vm.execute({0xcd, 0x21}), Outcome::stop);
  EXPECT_EQ(vm.cpu.activity, Activity::shutdown);
}

// -- Protected mode

TEST(ProtectedMode, InterruptGateFromRing3SwitchesStacks) {
  RingVm vm{false};
  vm.ring3();
  vm.cpu.sys_flags |= kIf | flag::tf | flag::nt;
  EXPECT_EQ(vm.deliver(Vector::gp, 0x123), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13);
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
  EXPECT_EQ(vm.selector(Seg::cs), sel::code0);
  EXPECT_EQ(vm.selector(Seg::ss), sel::data0);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 24);
  EXPECT_EQ(vm.stack(0), 0x123u);
  EXPECT_EQ(vm.stack(1), 0x10000u);
  EXPECT_EQ(vm.stack(2), sel::code3);
  EXPECT_EQ(vm.stack(3), 2 | kIf | flag::tf | flag::nt | flag::rf);
  EXPECT_EQ(vm.stack(4), RingVm::kStack3);
  EXPECT_EQ(vm.stack(5), sel::data3);
  EXPECT_EQ(vm.cpu.sys_flags, 0u);
  EXPECT_EQ(vm.access(sel::code0), 0x9b) << "accessed";
  EXPECT_EQ(vm.access(sel::data0), 0x93);
}

TEST(ProtectedMode, TrapGateKeepsTheInterruptFlagAndTheStack) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 0x40) = RingVm::gate_descriptor(sel::code0, 0x777, 0x8f);
  vm.cpu.sys_flags |= kIf;
  EXPECT_EQ(vm.execute({0xcd, 0x40}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x777u);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 12);
  EXPECT_EQ(vm.stack(0), 0x10002u);
  EXPECT_EQ(vm.cpu.sys_flags, kIf);
}

TEST(ProtectedMode, SixteenBitGatePushesWords) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 0x40) = RingVm::gate_descriptor(sel::code16, 0x55550777, 0x86);
  EXPECT_EQ(vm.execute({0xcd, 0x40}), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x777u);
  EXPECT_EQ(vm.cpu.mode, Mode::protected16);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 6);
  EXPECT_EQ(vm.stack<u16>(0), 0x0002);
  EXPECT_EQ(vm.stack<u16>(1), sel::code0);
}

TEST(ProtectedMode, OutOfVirtual8086Mode) {
  RingVm vm{false};
  vm.vm86();
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 6);
  EXPECT_EQ(vm.cpu.mode, Mode::protected32);
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 36);
  EXPECT_EQ(vm.stack(0), 0x100u);
  EXPECT_EQ(vm.stack(1), 0x1100u);
  EXPECT_EQ(vm.stack(2) & flag::vm, flag::vm);
  EXPECT_EQ(vm.stack(3), 0x800u);
  EXPECT_EQ(vm.stack(4), 0x1200u) << "SS";
  EXPECT_EQ(vm.stack(5), 0x1000u) << "ES";
  EXPECT_EQ(vm.stack(6), 0x1300u) << "DS";
  EXPECT_EQ(vm.stack(7), 0x1400u) << "FS";
  EXPECT_EQ(vm.stack(8), 0x1500u) << "GS";
  for (const Seg s : {Seg::ds, Seg::es, Seg::fs, Seg::gs}) {
    EXPECT_EQ(vm.selector(s), 0);
    EXPECT_FALSE(vm.seg(s).usable);
  }
}

TEST(ProtectedMode, Virtual8086NeedsARing0Handler) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 0x40) = RingVm::gate_descriptor(sel::code3 & ~3, 0x777, 0xee);
  vm.vm86();
  EXPECT_EQ(vm.execute({0xcd, 0x40}), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13);
  EXPECT_EQ(vm.stack(0), sel::code3 & ~3u);
}

TEST(ProtectedMode, IntInVirtual8086ModeObeysIopl) {
  RingVm vm{false};
  vm.vm86(2);
  EXPECT_EQ(vm.try_run({0xcd, 0x40}), "#13(0x0)");
}

TEST(ProtectedMode, GateErrors) {
  RingVm vm{false};
  vm.ring3();
  EXPECT_EQ(vm.execute({0xcd, 0x40}), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13) << "INT n through a DPL 0 gate";
  EXPECT_EQ(vm.stack(0), 0x40 * 8 + 2u) << "IDT, EXT = 0";
  EXPECT_EQ(vm.stack(1), 0x10000u) << "the INT is restarted";

  vm.ring3();
  vm.at<u64>(RingVm::kIdt + 8 * 6) &= ~(u64{0x80} << 40);
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 11) << "gate not present";
  EXPECT_EQ(vm.stack(0), 6 * 8 + 3u) << "IDT, EXT = 1";

  vm.ring3();
  vm.at<u64>(RingVm::kIdt + 8 * 5) = RingVm::gate_descriptor(sel::data0, 0, 0x8e);
  EXPECT_EQ(vm.deliver(Vector::br), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13) << "not a code segment";
  EXPECT_EQ(vm.stack(0), sel::data0 + 1u);

  vm.ring3();
  vm.at<u64>(RingVm::kIdt + 8 * 5) = RingVm::gate_descriptor(0, 0, 0x8e);
  EXPECT_EQ(vm.deliver(Vector::br), Outcome::jumped);
  EXPECT_EQ(vm.stack(0), 1u) << "null selector";
}

TEST(ProtectedMode, BadInnerStack) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 10) = RingVm::gate_descriptor(sel::conforming, 0x5555, 0x8e);  // #TS stays in ring 3
  vm.ring3();
  vm.at<u16>(RingVm::kTss + 8) = sel::data3;
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x5555u);
  EXPECT_EQ(vm.cpu.cpl, 3);
  EXPECT_EQ(vm.rsp(), RingVm::kStack3 - 16);
  EXPECT_EQ(vm.stack(0), (sel::data3 & ~3u) | 1);

  vm.ring3();
  vm.cpu.tr.limit = 8;
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.stack(0), sel::tss | 1u) << "the TSS is too short";
}

TEST(ProtectedMode, NoRoomOnTheInnerStack) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 12) = RingVm::gate_descriptor(sel::conforming, 0x5555, 0x8e);
  vm.ring3();
  vm.at<u16>(RingVm::kTss + 8) = sel::small;
  vm.at<u32>(RingVm::kTss + 4) = 0x10;
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x5555u);
  EXPECT_EQ(vm.stack(0), sel::small | 1u);
}

TEST(ProtectedMode, DoubleAndTripleFault) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 13) = 0;  // #GP's own gate is bad
  EXPECT_EQ(vm.deliver(Vector::gp), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 8);
  EXPECT_EQ(vm.stack(0), 0u);
  EXPECT_EQ(vm.stack(3) & flag::rf, 0u) << "an abort, not a fault";
  EXPECT_EQ(vm.cpu.count.exceptions[8], 1u);

  vm.ring0();
  vm.at<u64>(RingVm::kIdt + 8 * 8) = 0;
  EXPECT_EQ(vm.deliver(Vector::gp), Outcome::stop);
  EXPECT_EQ(vm.cpu.activity, Activity::shutdown);
  EXPECT_EQ(vm.cpu.rip, 0x10000u) << "the report shows where it began";
}

TEST(ProtectedMode, BenignThenContributoryIsNoDoubleFault) {
  RingVm vm{false};
  vm.at<u64>(RingVm::kIdt + 8 * 6) = 0;
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13);
  EXPECT_EQ(vm.stack(0), 6 * 8 + 3u);
}

// -- IA-32e mode

TEST(LongMode, FrameFromRing3) {
  RingVm vm{true};
  vm.ring3();
  vm.cpu.gpr[isa::rsp] = RingVm::kStack3 - 4;
  vm.cpu.sys_flags |= kIf;
  vm.put<u64>(RingVm::kTss + 4, RingVm::kStack0 - 8);
  vm.cpu.fault = Fault{Vector::pf, 6, 0x12345, 0};
  EXPECT_EQ(deliver_fault(vm.cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 14);
  EXPECT_EQ(vm.cpu.cr2, 0x12345u);
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.cpu.mode, Mode::long64);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 16 - 48) << "aligned before the pushes";
  EXPECT_EQ(vm.stack<u64>(0), 6u);
  EXPECT_EQ(vm.stack<u64>(1), 0x10000u);
  EXPECT_EQ(vm.stack<u64>(2), sel::code64_3);
  EXPECT_EQ(vm.stack<u64>(3), 2 | kIf | flag::rf);
  EXPECT_EQ(vm.stack<u64>(4), RingVm::kStack3 - 4);
  EXPECT_EQ(vm.stack<u64>(5), sel::data3);
  EXPECT_EQ(vm.selector(Seg::ss), 0) << "null, RPL 0";
  EXPECT_EQ(vm.selector(Seg::ds), sel::data3) << "untouched";
  EXPECT_EQ(vm.cpu.sys_flags, 0u);
}

TEST(LongMode, FrameAcrossPages) {
  RingVm vm{true};
  vm.cpu.gpr[isa::rsp] = RingVm::kStack0 + 0x10;
  EXPECT_EQ(vm.deliver(Vector::gp, 0x18), Outcome::jumped);
  EXPECT_EQ(vm.rsp(), RingVm::kStack0 + 0x10 - 48);
  EXPECT_EQ(vm.stack<u64>(0), 0x18u);
  EXPECT_EQ(vm.stack<u64>(5), sel::data0);
  EXPECT_EQ(vm.selector(Seg::ss), sel::data0) << "same ring: SS stays";
}

TEST(LongMode, InterruptStackTable) {
  RingVm vm{true};
  vm.set_long_gate(2, RingVm::gate_descriptor(sel::code64_0, 0x4444, 0x8e, 1));
  vm.cpu.gpr[isa::rsp] = 0x1;  // as bad as can be: not looked at
  EXPECT_EQ(deliver_event(vm.cpu, EventKind::nmi, 2, vm.cpu.rip), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x4444u);
  EXPECT_EQ(vm.rsp(), RingVm::kIst1 - 40);
  EXPECT_EQ(vm.stack<u64>(3), 1u);
}

TEST(LongMode, UnmappedKernelStackIsADoubleFault) {
  RingVm vm{true};
  vm.set_long_gate(8, RingVm::gate_descriptor(sel::code64_0, 0x8888, 0x8e, 1));
  vm.cpu.gpr[isa::rsp] = 0xffff'9000'0000'0000;
  vm.cpu.fault = Fault{Vector::pf, 2, 0xffff'9000'0000'0000 - 8, 0};
  EXPECT_EQ(deliver_fault(vm.cpu), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0x8888u);
  EXPECT_EQ(vm.stack<u64>(0), 0u);
  EXPECT_EQ(vm.stack<u64>(1), 0x10000u);
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], RingVm::kIst1 - 48);
}

TEST(LongMode, NonCanonicalStackIsAStackFault) {
  RingVm vm{true};
  vm.set_long_gate(12, RingVm::gate_descriptor(sel::code64_0, 0xcccc, 0x8e, 1));
  vm.cpu.gpr[isa::rsp] = 0x8000'0000'0000'0000;
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.cpu.rip, 0xccccu);
  EXPECT_EQ(vm.stack<u64>(0), 1u) << "#SS(EXT)";
}

TEST(LongMode, GateErrors) {
  RingVm vm{true};
  vm.ring3();
  EXPECT_EQ(vm.execute({0xcd, 0x80}), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13);
  EXPECT_EQ(vm.stack<u64>(0), 0x80 * 8 + 2u);

  vm.ring0();
  vm.set_long_gate(6, RingVm::gate_descriptor(sel::code0, 0x20000, 0x8e));
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13) << "a 32-bit code segment";
  EXPECT_EQ(vm.stack<u64>(0), sel::code0 + 1u);

  vm.ring0();
  vm.set_long_gate(6, RingVm::gate_descriptor(sel::code64_0, 0, 0x8e), 0x8000);
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 13) << "non-canonical handler";
  EXPECT_EQ(vm.stack<u64>(0), 1u);

  vm.ring0();
  vm.set_long_gate(6, RingVm::gate_descriptor(sel::code64_0, 0, 0x85));
  EXPECT_EQ(vm.deliver(Vector::ud), Outcome::jumped);
  EXPECT_EQ(vm.stack<u64>(0), 6 * 8 + 3u) << "no task gates here";
}

TEST(LongMode, HandlersThatFaultForEverEndInShutdown) {
  RingVm vm{true};
  vm.set_long_gate(17, RingVm::gate_descriptor(sel::code64_3 & ~3, 0x4444, 0xee));
  vm.ring3();
  vm.cpu.cr0 |= cr0::am;
  vm.set_flag(flag::ac, true);
  vm.cpu.gpr[isa::rsp] = 0xffff'9000'0000'0000;
  vm.set_long_gate(14, RingVm::gate_descriptor(sel::code64_3 & ~3, 0x4444, 0xee));
  vm.set_long_gate(8, 0);
  EXPECT_EQ(vm.deliver(Vector::ac), Outcome::stop);
  EXPECT_EQ(vm.cpu.activity, Activity::shutdown);
}

// -- Debug exceptions

TEST(Debug, SingleStepIsATrap) {
  RingVm vm{true};
  vm.cpu.debug.dr6 = dr6::fixed | 3;
  vm.cpu.debug.dr7 = 0x2400;
  vm.cpu.sys_flags |= flag::tf;
  EXPECT_EQ(debug_trap(vm.cpu, dr6::bs), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 1);
  EXPECT_EQ(vm.cpu.debug.dr6, dr6::fixed | dr6::bs);
  EXPECT_EQ(vm.cpu.debug.dr7 & 0x2000, 0u) << "GD";
  EXPECT_EQ(vm.stack<u64>(2), 2u | flag::tf) << "RF is 0";
  EXPECT_EQ(vm.cpu.sys_flags, 0u);
}

TEST(Debug, InstructionBreakpoints) {
  RingVm vm{true};
  vm.cpu.debug.dr[1] = vm.cpu.rip;
  vm.cpu.debug.dr[2] = vm.cpu.rip;
  vm.cpu.debug.dr7 = 0x400 | 1 << 2;
  EXPECT_EQ(instruction_breakpoints(vm.cpu), dr6::b1);
  vm.cpu.debug.dr7 |= 1 << 5 | 1u << 24;  // DR2 watches writes
  EXPECT_EQ(instruction_breakpoints(vm.cpu), dr6::b1);
  vm.cpu.rip++;
  EXPECT_EQ(instruction_breakpoints(vm.cpu), 0u);
}

// -- Instruction boundary

struct Boundary : testing::Test {
  struct Pic : RecordingBus {
    u8 pic_acknowledge(Vcpu&) override { return 0x30; }
  };
  RingVm vm{true};
  Vcpu& cpu = vm.cpu;
  LapicInbox inbox{};
  LapicMirror mirror{};
  Pic pic;
  std::optional<Lapic> apic;

  void SetUp() override {
    vm.clock.instructions = true;
    cpu.bus = &pic;
    apic.emplace(cpu, inbox, mirror);
    cpu.lapic = &*apic;
    apic->mmio_write(0xf0, 0x1ff);  // software-enabled
    cpu.attention->store(0);
  }
  void TearDown() override { cpu.lapic = nullptr; }
  void post(u8 vector) {
    inbox.fixed[vector / 64].fetch_or(u64{1} << (vector % 64));
    cpu.attention->fetch_or(attention::interrupt);
  }
};

TEST_F(Boundary, NothingToDo) { EXPECT_EQ(service_events(cpu), Outcome::next); }

TEST_F(Boundary, AcceptsAnInterrupt) {
  cpu.sys_flags |= kIf;
  cpu.activity = Activity::halted;
  EXPECT_FALSE(wakeable(cpu));
  post(0x41);
  EXPECT_TRUE(wakeable(cpu));
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x41);
  EXPECT_EQ(cpu.activity, Activity::running);
  EXPECT_EQ(cpu.attention->load(), 0u);
  EXPECT_FALSE(cpu.interrupt_waiting);
  EXPECT_EQ(vm.stack<u64>(2) & flag::rf, 0u);
}

TEST_F(Boundary, AMaskedInterruptCostsNothingUntilIfIsSet) {
  post(0x41);
  EXPECT_EQ(service_events(cpu), Outcome::next);
  EXPECT_EQ(cpu.attention->load(), 0u) << "engines are left alone";
  EXPECT_EQ(vm.execute({0xfb}), Outcome::next);  // STI
  EXPECT_EQ(cpu.attention->load(), attention::interrupt);
  EXPECT_EQ(service_events(cpu), Outcome::next) << "in the shadow";
  EXPECT_EQ(cpu.attention->load(), attention::interrupt) << "asks again";
  cpu.interrupt_shadow = false;
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x41);
}

TEST_F(Boundary, TheNextInterruptWaitsForIret) {
  cpu.sys_flags |= kIf;
  post(0x31);
  post(0x41);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x41);
  EXPECT_EQ(cpu.attention->load(), 0u);
  apic->mmio_write(0xb0, 0);  // EOI
  cpu.attention->store(cpu.attention->load());
  EXPECT_EQ(service_events(cpu), Outcome::next) << "IF is 0";
  EXPECT_EQ(vm.execute({0x48, 0xcf}), Outcome::jumped);  // IRETQ
  EXPECT_EQ(cpu.rip, 0x10000u);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x31);
}

TEST_F(Boundary, LegacyInterruptController) {
  apic->mmio_write(0x350, 0x700);  // LINT0: ExtINT
  inbox.extint = 1;
  cpu.attention->store(attention::interrupt);
  cpu.sys_flags |= kIf;
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x30);
}

TEST_F(Boundary, NmiIsBlockedUntilIret) {
  cpu.attention->store(attention::nmi);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 2);
  EXPECT_TRUE(cpu.nmi_blocked);
  cpu.attention->store(attention::nmi);
  EXPECT_FALSE(wakeable(cpu));
  EXPECT_EQ(service_events(cpu), Outcome::next);
  EXPECT_EQ(cpu.attention->load(), 0u);
  EXPECT_EQ(vm.execute({0x48, 0xcf}), Outcome::jumped);
  EXPECT_FALSE(cpu.nmi_blocked);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 2);
  EXPECT_EQ(cpu.count.nmis, 2u);
}

// One in service and one pending, however close together they came; a third is lost.
TEST_F(Boundary, OfThreeNmisTwoAreKept) {
  for (int i = 0; i < 3; i++) attention::post_nmi(*cpu.attention);
  EXPECT_TRUE(wakeable(cpu));
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 2);
  EXPECT_EQ(service_events(cpu), Outcome::next);
  attention::post_nmi(*cpu.attention);  // one is kept already
  EXPECT_EQ(service_events(cpu), Outcome::next);
  EXPECT_EQ(cpu.attention->load(), 0u);
  EXPECT_EQ(vm.execute({0x48, 0xcf}), Outcome::jumped);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.execute({0x48, 0xcf}), Outcome::jumped);
  EXPECT_EQ(service_events(cpu), Outcome::next);
  EXPECT_EQ(cpu.count.nmis, 2u);
}

// It sleeps, so it sees the NMI only with the SIPI that wakes it.
TEST_F(Boundary, AnNmiToAProcessorThatWaitsForSipiIsDropped) {
  cpu.index = 1;
  cpu.attention->store(attention::init);
  EXPECT_EQ(service_events(cpu), Outcome::halt);
  attention::post_nmi(*cpu.attention);
  attention::post_nmi(*cpu.attention);
  EXPECT_FALSE(wakeable(cpu));
  cpu.attention->fetch_or(attention::sipi);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(cpu.rip, 0u);
  EXPECT_EQ(service_events(cpu), Outcome::next);
  EXPECT_EQ(cpu.count.nmis, 0u);
}

TEST_F(Boundary, NmiComesBeforeAnInterruptAndAKickAfterBoth) {
  cpu.sys_flags |= kIf;
  post(0x41);
  cpu.attention->fetch_or(attention::nmi | attention::kick);
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 2);
  EXPECT_EQ(service_events(cpu), Outcome::stop) << "the handler runs with IF = 0";
  EXPECT_EQ(service_events(cpu), Outcome::next);
}

TEST_F(Boundary, InitThenSipi) {
  cpu.index = 1;
  cpu.attention->store(attention::init);
  EXPECT_EQ(service_events(cpu), Outcome::halt);
  EXPECT_EQ(cpu.activity, Activity::wait_for_sipi);
  EXPECT_FALSE(wakeable(cpu));
  cpu.attention->store(attention::interrupt | attention::nmi);
  EXPECT_EQ(service_events(cpu), Outcome::halt) << "deaf";
  inbox.sipi_vector = 0x9a;
  cpu.attention->store(attention::sipi);
  EXPECT_TRUE(wakeable(cpu));
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(cpu.mode, Mode::real);
  EXPECT_EQ(vm.selector(Seg::cs), 0x9a00);
  EXPECT_EQ(vm.seg(Seg::cs).linear_base, 0x9a000u);
  EXPECT_EQ(cpu.rip, 0u);
  cpu.attention->store(attention::sipi);
  EXPECT_EQ(service_events(cpu), Outcome::next) << "a second one means nothing";
}

TEST_F(Boundary, TimerDeadline) {
  apic->mmio_write(0x320, 0x40);  // one-shot, vector 0x40
  apic->mmio_write(0x3e0, 0xb);   // divide by 1
  apic->mmio_write(0x380, 1000);
  ASSERT_NE(cpu.timer_deadline, ~u64{0});
  cpu.sys_flags |= kIf;
  cpu.attention->store(0);
  EXPECT_EQ(service_events(cpu), Outcome::next);
  cpu.retired += 1'000'000;
  EXPECT_TRUE(wakeable(cpu));
  EXPECT_EQ(service_events(cpu), Outcome::jumped);
  EXPECT_EQ(vm.handler(), 0x40);
  EXPECT_EQ(cpu.timer_deadline, ~u64{0});
}

}  // namespace
}  // namespace trapline::cpu::test
