#include "cpu/delivery.h"
#include "cpu/descriptor.h"
#include "cpu/events.h"
#include "para/xen/bounce.h"
#include "support/vendors.h"
#include "xen_fixture.h"

namespace trapline::para::xen {
namespace {

// The guest's shared info and kernel stack, and a user address space.
struct Entry : XenTest {
  static constexpr u64 kUserL4 = 60, kStackPage = 70;
  static constexpr u64 kHandler = 0x33000;

  void SetUp() override {
    XenTest::SetUp();
    trap_info traps[3] = {{14, 4, kKernelCs, kHandler}, {3, 3, kKernelCs, kHandler + 16}, {0, 0, 0, 0}};
    ASSERT_EQ(call(__HYPERVISOR_set_trap_table, {given(traps)}), 0);
    ASSERT_EQ(call(__HYPERVISOR_set_callbacks, {0x34000, 0x35000, 0x36000}), 0);
    ASSERT_EQ(call(__HYPERVISOR_stack_switch, {kKernelSs, linear(kStackPage) + kPageSize}), 0);
    ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(kUserL4), at(kUserL4) | (kBits & ~pte::writable), 0}), 0);
    ASSERT_EQ(extended(MMUEXT_PIN_L4_TABLE, mfn(kUserL4)), 0);
    ASSERT_EQ(extended(MMUEXT_NEW_USER_BASEPTR, mfn(kUserL4)), 0);
    cpu.gpr[isa::rsp] = linear(kStackPage) + 0x800;
  }
  vcpu_info& info() { return *reinterpret_cast<vcpu_info*>(ram.host(gpa(layout.shared_info))); }
  u64 pushed(unsigned index) {
    u64 value = 0;
    EXPECT_TRUE(cpu::read_slow(cpu, cpu::Seg::ss, Gva{cpu.gpr[isa::rsp] + index * 8}, &value, 8));
    return value;
  }
  void go_to_user(u64 rip) {
    iret_context frame{};
    frame.rip = rip, frame.cs = kKernelCs, frame.ss = kKernelSs, frame.rflags = cpu::flag::if_ | 2, frame.rsp = 0x7000;
    frame.rax = 5, frame.rcx = 6, frame.r11 = 7;
    std::memcpy(ram.host(Gpa{at(kStackPage) + 0x700}), &frame, sizeof frame);
    cpu.gpr[isa::rsp] = linear(kStackPage) + 0x700;
    cpu.gpr[isa::rax] = __HYPERVISOR_iret;
    static_cast<void>(domain.syscall(cpu, 0));
  }
};

TEST_F(Entry, IretLeadsToAProgramAndSyscallBack) {
  cpu.segment(cpu::Seg::gs).base = 0x1000, cpu.msr.kernel_gs_base = 0x2000;
  go_to_user(0x400000);
  EXPECT_FALSE(domain.state(0).kernel);
  EXPECT_EQ(cpu.rip, 0x400000u);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.cr3, at(kUserL4));
  EXPECT_EQ(cpu.gpr[isa::rax], 5u);
  EXPECT_EQ(cpu.gpr[isa::rcx], 6u);
  EXPECT_EQ(cpu.segment(cpu::Seg::gs).base, 0x2000u);
  EXPECT_EQ(info().evtchn_upcall_mask, 0);

  EXPECT_EQ(domain.syscall(cpu, 0x400002), cpu::Outcome::jumped);
  EXPECT_TRUE(domain.state(0).kernel);
  EXPECT_EQ(cpu.rip, 0x36000u);
  EXPECT_EQ(cpu.cr3, at(kL4));
  EXPECT_EQ(cpu.gpr[isa::rsp], linear(kStackPage) + kPageSize - 7 * 8);
  EXPECT_EQ(pushed(2), 0x400002u);
  EXPECT_EQ(pushed(3), kKernelCs) << "of a program: RPL 3, upcalls open";
  EXPECT_EQ(pushed(4) & cpu::flag::if_, u64{cpu::flag::if_});
  EXPECT_EQ(pushed(5), 0x7000u);
  EXPECT_EQ(cpu.segment(cpu::Seg::gs).base, 0x1000u);
}

TEST_F(Entry, AProgramSeesNothingOfItsKernel) {
  u64 value;
  EXPECT_TRUE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{linear(40)}, &value, 8));
  go_to_user(0x400000);
  EXPECT_FALSE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{linear(40)}, &value, 8));
  EXPECT_EQ(domain.syscall(cpu, 0x400002), cpu::Outcome::jumped);
  EXPECT_TRUE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{linear(40)}, &value, 8));
}

TEST_F(Entry, APageFaultOfTheKernelIsItsOwn) {
  cpu.rip = 0x31234;
  cpu.fault = cpu::Fault{cpu::Vector::pf, cpu::pf_error::present | cpu::pf_error::user, 0xdead000, 0};
  EXPECT_EQ(cpu::deliver_fault(cpu), cpu::Outcome::jumped);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(pushed(2), u64{cpu::pf_error::present}) << "no user's";
  EXPECT_EQ(pushed(3), 0x31234u);
  EXPECT_EQ(pushed(4) & 3, 0u) << "kernel: RPL 0";
  EXPECT_EQ(info().arch.cr2, 0xdead000u);
  EXPECT_EQ(info().evtchn_upcall_mask, 1) << "the gate closes upcalls";
}

TEST_F(Entry, AGateOpensForWhoMayUseIt) {
  go_to_user(0x400000);
  EXPECT_EQ(cpu::deliver_event(cpu, cpu::EventKind::software_exception, 3, 0x400001), cpu::Outcome::jumped);
  EXPECT_EQ(cpu.rip, kHandler + 16);
  go_to_user(0x400000);
  EXPECT_THROW(static_cast<void>(cpu::deliver_event(cpu, cpu::EventKind::software_interrupt, 14, 0x400002)), Crash)
      << "the page fault's is the kernel's; #GP has no handler here";
}

TEST_F(Entry, WithoutAHandlerOrAStackTheDomainEnds) {
  cpu.fault = cpu::Fault{cpu::Vector::de, 0, 0, 0};
  EXPECT_THROW(static_cast<void>(cpu::deliver_fault(cpu)), Crash);
  cpu.fault = cpu::Fault{cpu::Vector::pf, 0, 0, 0};
  for (const u64 stack : {u64{0}, linear(kL1) + 0x100, kHypervisorStart.raw + 0x1000, u64{1} << 47}) {
    cpu.gpr[isa::rsp] = stack;
    EXPECT_THROW(static_cast<void>(cpu::deliver_fault(cpu)), Crash) << stack;
  }
}

TEST_F(Entry, AnUpcallWaitsUntilItIsLetIn) {
  info().evtchn_upcall_mask = 1;
  evtchn_bind_virq_t bind{VIRQ_TIMER, 0, 0};
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_virq, given(bind)}), 0);
  const Port port = answered<evtchn_bind_virq_t>().port;
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_unmask, given(evtchn_unmask_t{port})}), 0);
  ASSERT_EQ(call(__HYPERVISOR_set_timer_op, {1}), 0);
  clock.virtual_base = 1000;
  EXPECT_EQ(cpu.timer_deadline, 1u);
  domain.on_timer(cpu);
  EXPECT_EQ(cpu.timer_deadline, ~u64{0});
  EXPECT_EQ(info().evtchn_upcall_pending, 1);
  EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::next) << "masked";
  info().evtchn_upcall_mask = 0;
  cpu.rip = 0x30010;
  EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::jumped);
  EXPECT_EQ(cpu.rip, 0x34000u);
  EXPECT_EQ(pushed(2), 0x30010u);
  EXPECT_EQ(info().evtchn_upcall_mask, 1);
}

TEST_F(Entry, BlockSleepsOnlyWhileNothingIsPending) {
  info().evtchn_upcall_pending = 1;
  info().evtchn_upcall_mask = 1;
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_block, 0}), 0);
  EXPECT_EQ(cpu.activity, cpu::Activity::running);
  EXPECT_EQ(info().evtchn_upcall_mask, 0);
  info().evtchn_upcall_pending = 0;
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_block, 0}), 0);
  EXPECT_EQ(cpu.activity, cpu::Activity::halted);
  EXPECT_FALSE(domain.wakes(cpu));
  info().evtchn_upcall_pending = 1;
  EXPECT_TRUE(domain.wakes(cpu));
  EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::jumped);
  EXPECT_EQ(cpu.activity, cpu::Activity::running);
}

// Who polls for a lock with its events open may itself be waited for.
TEST_F(Entry, AnUpcallEndsAPoll) {
  info().evtchn_upcall_mask = 0;
  sched_poll_t poll{};
  const u64 ports = given(Port{9}, 64);
  std::memcpy(&poll.ports, &ports, 8);
  poll.nr_ports = 1;
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_poll, given(poll)}), 0);
  EXPECT_EQ(cpu.activity, cpu::Activity::halted);
  EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::next);
  EXPECT_EQ(cpu.activity, cpu::Activity::halted);
  info().evtchn_upcall_pending = 1;
  EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::jumped);
  EXPECT_EQ(cpu.activity, cpu::Activity::running);
  EXPECT_FALSE(domain.state(0).polling);
}

TEST_F(Entry, ShutdownHasItsReasons) {
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_shutdown, given(u32{SHUTDOWN_poweroff})}), 0);
  EXPECT_EQ(host.power_offs, 1);
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_shutdown, given(u32{SHUTDOWN_reboot})}), 0);
  EXPECT_EQ(host.reboots, 1);
  EXPECT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_shutdown, given(u32{SHUTDOWN_suspend})}), fail(XEN_EINVAL));
  EXPECT_THROW(call(__HYPERVISOR_sched_op, {SCHEDOP_shutdown, given(u32{SHUTDOWN_crash})}), Crash);
}

TEST_F(Entry, WhatIsNotForAGuestIsRefusedByItsCode) {
  EXPECT_EQ(call(__HYPERVISOR_platform_op, {}), fail(XEN_EPERM));
  EXPECT_EQ(call(__HYPERVISOR_domctl, {}), fail(XEN_EPERM));
  EXPECT_EQ(call(__HYPERVISOR_hvm_op, {}), fail(XEN_ENOSYS));
  for (u64 number = 43; number < 80; number++) EXPECT_EQ(call(number, {}), fail(XEN_ENOSYS)) << number;
  EXPECT_EQ(call(~u64{0}, {}), fail(XEN_ENOSYS));
}

TEST_F(Entry, AMulticallIsItsCalls) {
  multicall_entry_t list[3] = {};
  list[0].op = __HYPERVISOR_xen_version;
  list[1].op = __HYPERVISOR_multicall;
  list[2].op = __HYPERVISOR_set_segment_base;
  list[2].args[0] = SEGBASE_FS, list[2].args[1] = 0x5000;
  EXPECT_EQ(call(__HYPERVISOR_multicall, {given(list), 3}), 0);
  EXPECT_EQ(answered<multicall_entry_t>().result, u64{4 << 16 | 17});
  EXPECT_EQ(static_cast<Status>(answered<multicall_entry_t>(sizeof *list).result), fail(XEN_EINVAL));
  EXPECT_EQ(cpu.segment(cpu::Seg::fs).base, 0x5000u);
}

// What follows an iret in a batch is not of this kernel's mode any more.
TEST_F(Entry, AnIretEndsItsMulticall) {
  multicall_entry_t list[2] = {};
  list[0].op = __HYPERVISOR_iret;
  list[1].op = __HYPERVISOR_xen_version;
  iret_context frame{};
  frame.rip = 0x400000, frame.cs = kKernelCs, frame.ss = kKernelSs, frame.rflags = cpu::flag::if_ | 2,
  frame.rax = 0xdead;
  std::memcpy(ram.host(Gpa{at(kStackPage) + 0x700}), &frame, sizeof frame);
  cpu.gpr[isa::rsp] = linear(kStackPage) + 0x700;
  call(__HYPERVISOR_multicall, {given(list), 2});
  EXPECT_EQ(cpu.gpr[isa::rax], 0xdeadu);
  EXPECT_EQ(cpu.rip, 0x400000u);
  EXPECT_FALSE(domain.state(0).kernel);
  EXPECT_EQ(answered<multicall_entry_t>(sizeof list[0]).result, 0u) << "not run";
}

// A program's 32-bit SYSCALL is returned from into 32-bit code.
struct SyscallReturn : Entry {
  void to(u64 cs) {
    iret_context frame{};
    frame.rip = 0x400000, frame.cs = cs, frame.ss = kKernelSs, frame.rflags = cpu::flag::if_ | 2;
    frame.flags = VGCF_in_syscall;
    std::memcpy(ram.host(Gpa{at(kStackPage) + 0x700}), &frame, sizeof frame);
    domain.state(0).kernel = true;
    cpu.gpr[isa::rsp] = linear(kStackPage) + 0x700;
    cpu.gpr[isa::rax] = __HYPERVISOR_iret;
    static_cast<void>(domain.syscall(cpu, 0));
    EXPECT_EQ(cpu.gpr[isa::rcx], 0x400000u);
  }
};

TEST_F(SyscallReturn, HasTheWidthOfItsCs) {
  to(kKernelCs);
  EXPECT_TRUE(cpu.in_long64());
}

TEST_F(SyscallReturn, GoesTo32BitCodeToo) {
  to(kFlatCs32);
  EXPECT_FALSE(cpu.in_long64());
}

// Frames have the upcall mask above the selector, and kernels give them back as they are.
TEST_F(SyscallReturn, LooksAtNoMoreThanTheSelector) {
  to(u64{1} << 32 | kFlatCs32);
  EXPECT_FALSE(cpu.in_long64());
}

// IOPL decides who may execute CLI, for a program as for a kernel, which is at 1 by Xen's rule and at 0 by the processor's.
TEST_F(Entry, IoplIsForWhoHasAskedForIt) {
  *reinterpret_cast<u8*>(ram.host(Gpa{at(0x33)})) = 0xfa;  // CLI
  const auto allowed = [&](bool kernel) {
    domain.state(0).kernel = kernel;
    cpu.rip = 0x33000;
    cpu.fault = {cpu::Vector::gp, 0, 0, 0};
    cpu::Event event{};
    event.kind = cpu::EventKind::exception, event.vector = 13, event.has_error = true, event.return_rip = cpu.rip;
    try {
      static_cast<void>(domain.deliver(cpu, event));
    } catch (const Crash&) {  // no handler of #GP
      return false;
    }
    return cpu.rip == 0x33001;
  };
  for (const u32 iopl : {0u, 1u, 3u}) {
    ASSERT_EQ((domain.state(0).kernel = true, call(__HYPERVISOR_physdev_op, {PHYSDEVOP_set_iopl, given(iopl)})), 0);
    EXPECT_EQ(allowed(true), iopl >= 1) << iopl;
    EXPECT_EQ(allowed(false), iopl == 3) << iopl;
  }
  domain.state(0).kernel = true;
  ASSERT_EQ(call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_architectural_iopl}), 0);
  ASSERT_EQ(call(__HYPERVISOR_physdev_op, {PHYSDEVOP_set_iopl, given(0u)}), 0);
  EXPECT_TRUE(allowed(true));
}

// A program's ports, where IOPL does not: a map in its kernel's memory (Linux's ioperm(), and its iopl()).
TEST_F(Entry, PortsAreForWhomTheKernelsMapAllowsThem) {
  cpu.cpl = 3;
  u8* const code_bytes = reinterpret_cast<u8*>(ram.host(Gpa{at(0x33)}));
  u8* const map = reinterpret_cast<u8*>(ram.host(Gpa{at(0x40)}));
  std::memset(map, 0xff, kPageSize);
  map[0x60 / 8] = 0xfe;  // 60H, not 61H
  const auto allowed = [&](u8 opcode, u16 port) {
    code_bytes[0] = opcode;
    domain.state(0).kernel = false;
    set_roots(cpu, domain.state(0));
    cpu.rip = 0x33000;
    cpu.gpr[isa::rdx] = port;
    cpu.fault = {cpu::Vector::gp, 0, 0, 0};
    cpu::Event event{};
    event.kind = cpu::EventKind::exception, event.vector = 13, event.has_error = true, event.return_rip = cpu.rip;
    try {
      static_cast<void>(domain.deliver(cpu, event));
    } catch (const Crash&) {
      return false;
    }
    return cpu.rip == 0x33001;
  };
  // The program's half has the code alone.
  entry(kUserL4, 0) = entry(kL4, 0);
  ASSERT_FALSE(allowed(0xec, 0x60));
  physdev_set_iobitmap_t op{};
  const u64 where = linear(0x40);
  std::memcpy(&op.bitmap, &where, sizeof where);
  op.nr_ports = 65537;
  domain.state(0).kernel = true, set_roots(cpu, domain.state(0));
  EXPECT_EQ(call(__HYPERVISOR_physdev_op, {PHYSDEVOP_set_iobitmap, given(op)}), fail(XEN_EINVAL));
  op.nr_ports = 0x100;
  EXPECT_EQ(call(__HYPERVISOR_physdev_op, {PHYSDEVOP_set_iobitmap, given(op)}), 0);
  EXPECT_TRUE(allowed(0xec, 0x60));   // in al, dx
  EXPECT_TRUE(allowed(0xee, 0x60));   // out dx, al
  EXPECT_FALSE(allowed(0xed, 0x60));  // in eax, dx: 61H to 63H too
  EXPECT_FALSE(allowed(0xec, 0x61));
  map[0x100 / 8] = 0;
  EXPECT_FALSE(allowed(0xec, 0x100)) << "behind the map";
  EXPECT_FALSE(domain.state(0).kernel);
}

// An exception of the instruction at 33000H that Xen executes for whom it is right. True: it did, `length` on.
struct Emulation : Entry {
  bool executed(std::initializer_list<u8> code_bytes, cpu::Vector vector) {
    std::memcpy(ram.host(Gpa{at(0x33)}), code_bytes.begin(), code_bytes.size());
    cpu.rip = 0x33000;
    cpu.fault = {vector, 0, 0, 0};
    cpu::Event event{};
    event.kind = cpu::EventKind::exception, event.vector = static_cast<u8>(vector), event.return_rip = cpu.rip;
    event.has_error = vector == cpu::Vector::gp;
    try {
      static_cast<void>(domain.deliver(cpu, event));
    } catch (const Crash&) {  // no handler of #GP and #UD
      return false;
    }
    return cpu.rip == 0x33000 + code_bytes.size();
  }
  bool wrmsr(u32 index, u64 value) {
    cpu.gpr[isa::rcx] = index;
    cpu.gpr[isa::rax] = value & 0xffffffff, cpu.gpr[isa::rdx] = value >> 32;
    return executed({0x0f, 0x30}, cpu::Vector::gp);
  }
};

// Linux writes PRED_CMD when it switches between programs, and has no handler for its fault.
TEST_F(Emulation, RegistersThatAKernelMayWriteAreTheVendors) {
  for (const isa::Vendor vendor : test::kVendors) {
    const cpu::Cpuid policy = test::policy_of(vendor);
    cpu.cpuid = &policy;
    const bool intel = vendor == isa::Vendor::intel;
    EXPECT_EQ(policy.has(cpu::Feature::spec_ctrl), intel);
    EXPECT_EQ(wrmsr(0x49, 1), intel) << "PRED_CMD: IBPB";
    EXPECT_FALSE(wrmsr(0x49, 2));
    EXPECT_EQ(wrmsr(0x48, 1), intel) << "SPEC_CTRL: IBRS";
    EXPECT_FALSE(wrmsr(0x48, 0x8000));
    EXPECT_EQ(wrmsr(0x10b, 1), policy.has(cpu::Feature::flush_l1d)) << "FLUSH_CMD: L1D";
    EXPECT_EQ(wrmsr(0x8b, 0), intel) << "the microcode's revision";
    EXPECT_FALSE(wrmsr(0x8b, 1));
    EXPECT_FALSE(wrmsr(0x10, 0)) << "the TSC is the hypervisor's";
    EXPECT_FALSE(wrmsr(0xc0000082, 0x1000)) << "LSTAR";
    cpu.cpuid = nullptr;
  }
}

TEST_F(Emulation, AKernelSeesOsxsaveBeforeItHasSetIt) {
  const cpu::Cpuid policy = test::policy_of(isa::Vendor::intel);
  cpu.cpuid = &policy;
  const auto osxsave = [&](bool kernel) {
    domain.state(0).kernel = kernel;
    cpu.gpr[isa::rax] = 1, cpu.gpr[isa::rcx] = 0;
    EXPECT_TRUE(executed({0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2}, cpu::Vector::ud));
    return (cpu.gpr[isa::rcx] >> 27 & 1) != 0;
  };
  entry(kUserL4, 0) = entry(kL4, 0);
  cpu.cr4 &= ~cpu::cr4::osxsave;
  EXPECT_TRUE(osxsave(true));
  EXPECT_FALSE(osxsave(false));
  cpu.cpuid = nullptr;
}

}  // namespace
}  // namespace trapline::para::xen
