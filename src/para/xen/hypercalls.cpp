// The hypercalls by number. SYSCALL from the guest's kernel: number in RAX, arguments in RDI, RSI, RDX, R10, R8, R9,
// result in RAX; RCX and R11 are lost as SYSCALL loses them.
#include "base/trace.h"
#include "cpu/descriptor.h"
#include "para/xen/bounce.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

namespace {

using cpu::Outcome;

// A batch cannot be longer than a vCPU may stay away from its events.
constexpr u64 kMostCalls = 4096;

}  // namespace

Outcome Domain::hypercall(cpu::Vcpu& cpu, u64 next) {
  cpu.count.hypercalls++;
  VcpuState& v = state(cpu);
  const u64 number = cpu.gpr[isa::rax];
  if (number == __HYPERVISOR_iret) return iret(cpu);
  const u32 flags = cpu.rflags() & ~cpu::flag::rf;
  const Arguments a = {cpu.gpr[isa::rdi], cpu.gpr[isa::rsi], cpu.gpr[isa::rdx],
                       cpu.gpr[isa::r10], cpu.gpr[isa::r8],  cpu.gpr[isa::r9]};
  cpu.gpr[isa::rcx] = next;
  cpu.gpr[isa::r11] = flags;
  cpu::cs_of(cpu) = flat_code64();
  cpu::ss_of(cpu) = flat_stack();
  cpu.rip = next;
  cpu::update_mode(cpu);
  v.in_hypercall = true;
  v.returned = false;
  const Status result = call(cpu, number, a);
  v.in_hypercall = false;
  if (v.returned) return Outcome::jumped;  // a batch with an iret in it
  cpu.gpr[isa::rax] = static_cast<u64>(result);
  look_for_events(cpu);
  return Outcome::jumped;
}

Status Domain::call(cpu::Vcpu& cpu, u64 number, const Arguments& a) {
  Status result = fail(XEN_ENOSYS);
  switch (number) {
    case __HYPERVISOR_set_trap_table:
      result = set_trap_table(cpu, Gva{a[0]});
      break;
    case __HYPERVISOR_mmu_update:
      result = mmu_update(cpu, a);
      break;
    case __HYPERVISOR_set_gdt:
      result = set_gdt(cpu, Gva{a[0]}, a[1]);
      break;
    case __HYPERVISOR_stack_switch:
      if (!cpu::canonical(a[1])) {
        result = fail(XEN_EINVAL);
        break;
      }
      state(cpu).kernel_sp = Gva{a[1]};
      result = 0;
      break;
    case __HYPERVISOR_set_callbacks:
      result = set_callbacks(cpu, a);
      break;
    case __HYPERVISOR_fpu_taskswitch:
      result = fpu_taskswitch(cpu, a[0] != 0);
      break;
    case __HYPERVISOR_set_debugreg:
      result = set_debugreg(cpu, a[0], a[1]);
      break;
    case __HYPERVISOR_get_debugreg:
      result = a[0] < 4                 ? static_cast<Status>(cpu.debug.dr[a[0]])
               : a[0] == 4 || a[0] == 6 ? static_cast<Status>(cpu.debug.dr6)
               : a[0] == 5 || a[0] == 7 ? static_cast<Status>(state(cpu).dr7)
                                        : fail(XEN_EINVAL);
      break;
    case __HYPERVISOR_update_descriptor:
      result = update_descriptor(cpu, Gpa{a[0]}, a[1]);
      break;
    case __HYPERVISOR_memory_op:
      result = memory_op(cpu, a[0], Gva{a[1]});
      break;
    case __HYPERVISOR_multicall:
      result = multicall(cpu, Gva{a[0]}, a[1]);
      break;
    case __HYPERVISOR_update_va_mapping:
      result = update_va_mapping(cpu, Gva{a[0]}, a[1], a[2]);
      break;
    case __HYPERVISOR_set_timer_op:
      set_timer(cpu, a[0]);
      result = 0;
      break;
    case __HYPERVISOR_xen_version:
      result = xen_version(cpu, a[0], Gva{a[1]});
      break;
    case __HYPERVISOR_console_io:
      result = console_io(cpu, a[0], a[1], Gva{a[2]});
      break;
    case __HYPERVISOR_grant_table_op:
      result = grant_table_op(cpu, a[0], Gva{a[1]}, a[2]);
      break;
    case __HYPERVISOR_vm_assist:
      result = vm_assist(a[0], a[1]);
      break;
    case __HYPERVISOR_vcpu_op:
      result = vcpu_op(cpu, a[0], a[1], Gva{a[2]});
      break;
    case __HYPERVISOR_set_segment_base:
      result = set_segment_base(cpu, a[0], a[1]);
      break;
    case __HYPERVISOR_mmuext_op:
      result = mmuext_op(cpu, a);
      break;
    case __HYPERVISOR_sched_op:
      result = sched_op(cpu, a[0], Gva{a[1]});
      break;
    case __HYPERVISOR_callback_op:
      result = callback_op(cpu, a[0], Gva{a[1]});
      break;
    case __HYPERVISOR_event_channel_op:
      result = event_channel_op(cpu, a[0], Gva{a[1]});
      break;
    case __HYPERVISOR_physdev_op:
      result = physdev_op(cpu, a[0], Gva{a[1]});
      break;
    // For the control domain.
    case __HYPERVISOR_platform_op:
    case __HYPERVISOR_sysctl:
    case __HYPERVISOR_domctl:
      result = fail(XEN_EPERM);
      break;
    // Of another domain, which there is none of.
    case __HYPERVISOR_update_va_mapping_otherdomain:
      result = fail(XEN_EPERM);
      break;
    default:
      break;
  }
  TRACE(exits, "xen: hypercall {} ({:#x}, {:#x}, {:#x}, {:#x}) -> {}", number, a[0], a[1], a[2], a[3], result);
  return result;
}

// Each entry is a hypercall of its own; a batch in a batch is refused there as by Xen, and one that returns (iret) ends.
Status Domain::multicall(cpu::Vcpu& cpu, Gva list, u64 count) {
  for (u64 i = 0; i < count; i++) {
    const Gva at = list.wrapping_add(i * sizeof(multicall_entry_t));
    multicall_entry_t entry;
    if (i == kMostCalls) return fail(XEN_EINVAL);
    if (!get(cpu, at, entry)) return fail(XEN_EFAULT);
    if (entry.op == __HYPERVISOR_iret) {
      static_cast<void>(iret(cpu));
      return 0;
    }
    Arguments a;
    std::copy(entry.args, entry.args + a.size(), a.begin());
    const Status result = entry.op == __HYPERVISOR_multicall ? fail(XEN_EINVAL) : call(cpu, entry.op, a);
    if (!put(cpu, at.wrapping_add(offsetof(multicall_entry_t, result)), static_cast<u64>(result)))
      return fail(XEN_EFAULT);
    if (cpu.activity != cpu::Activity::running) break;  // SCHEDOP_block: what follows waits for ever, as in Xen
  }
  return 0;
}

// -- Traps and callbacks

Status Domain::set_trap_table(cpu::Vcpu& cpu, Gva list) {
  VcpuState& v = state(cpu);
  if (list == Gva{}) {
    v.traps.fill({});
    return 0;
  }
  for (unsigned i = 0; i <= v.traps.size(); i++, list = list.wrapping_add(sizeof(trap_info))) {
    trap_info trap;
    if (!get(cpu, list, trap)) return fail(XEN_EFAULT);
    if (trap.address == 0) return 0;
    if (!cpu::canonical(trap.address)) return fail(XEN_EINVAL);
    v.traps[trap.vector] = trap;
  }
  return 0;
}

Status Domain::set_callbacks(cpu::Vcpu& cpu, const Arguments& a) {
  for (unsigned i = 0; i < 3; i++)
    if (!cpu::canonical(a[i])) return fail(XEN_EINVAL);
  VcpuState& v = state(cpu);
  v.event.address = Gva{a[0]};
  v.failsafe.address = Gva{a[1]};
  v.syscall.address = Gva{a[2]};
  return 0;
}

Status Domain::callback_op(cpu::Vcpu& cpu, u64 command, Gva argument) {
  if (command != CALLBACKOP_register && command != CALLBACKOP_unregister) return fail(XEN_ENOSYS);
  VcpuState& v = state(cpu);
  u16 type;
  if (!get(cpu, argument, type)) return fail(XEN_EFAULT);
  Callback* callback = type == CALLBACKTYPE_event                                                  ? &v.event
                       : type == CALLBACKTYPE_failsafe                                             ? &v.failsafe
                       : type == CALLBACKTYPE_syscall                                              ? &v.syscall
                       : type == CALLBACKTYPE_syscall32                                            ? &v.syscall32
                       : type == CALLBACKTYPE_sysenter || type == CALLBACKTYPE_sysenter_deprecated ? &v.sysenter
                       : type == CALLBACKTYPE_nmi                                                  ? &v.nmi
                                                                                                   : nullptr;
  if (!callback) return fail(XEN_ENOSYS);
  if (command == CALLBACKOP_unregister) {
    // What Xen cannot do without stays.
    if (callback != &v.sysenter && callback != &v.syscall32 && callback != &v.nmi) return fail(XEN_EINVAL);
    *callback = {};
    return 0;
  }
  callback_register_t r;
  if (!get(cpu, argument, r)) return fail(XEN_EFAULT);
  if (!cpu::canonical(r.address)) return fail(XEN_EINVAL);
  callback->address = Gva{r.address};
  callback->masks_events = r.flags & CALLBACKF_mask_events;
  return 0;
}

// -- What else the processor's registers would be to the guest

Status Domain::set_segment_base(cpu::Vcpu& cpu, u64 which, u64 base) {
  if (which == SEGBASE_GS_USER_SEL) {
    const u16 selector = static_cast<u16>(base);
    cpu::Segment segment = cpu::null_segment(selector);
    if (!cpu::null_selector(selector) && !cpu::check_data_segment(cpu, selector | 3, 3, cpu::Vector::gp, segment))
      return fail(XEN_EFAULT);
    cpu.msr.kernel_gs_base = segment.base;
    return 0;
  }
  if (!cpu::canonical(base)) return fail(XEN_EINVAL);
  switch (which) {
    case SEGBASE_FS:
      cpu.segment(cpu::Seg::fs).base = base;
      break;
    case SEGBASE_GS_USER:
      cpu.msr.kernel_gs_base = base;
      break;
    case SEGBASE_GS_KERNEL:
      cpu.segment(cpu::Seg::gs).base = base;
      break;
    default:
      return fail(XEN_EINVAL);
  }
  cpu::update_mode(cpu);
  return 0;
}

Status Domain::fpu_taskswitch(cpu::Vcpu& cpu, bool set) {
  state(cpu).fpu_trap = set;
  cpu.cr0 = set ? cpu.cr0 | cpu::cr0::ts : cpu.cr0 & ~cpu::cr0::ts;
  cpu::update_mode(cpu);
  return 0;
}

// Breakpoints in the hypervisor's area are none, and general detect is not for guests. I/O breakpoints, which need
// CR4.DE, are remembered for the guest: a domain without ports hits none.
Status Domain::set_debugreg(cpu::Vcpu& cpu, u64 number, u64 value) {
  if (number < 4) {
    if (!cpu::canonical(value) || (Gva{value} >= kHypervisorStart && Gva{value} < kHypervisorEnd))
      return fail(XEN_EPERM);
    cpu.debug.dr[number] = value;
  } else if (number == 4 || number == 6) {
    cpu.debug.dr6 = (value & 0xe00f) | 0xffff0ff0;
  } else if (number == 5 || number == 7) {
    if (value >> 32) return fail(XEN_EPERM);
    if (value & 0x2000) return fail(XEN_EPERM);
    u64 inert = 0;
    for (unsigned i = 0; i < 4; i++) {
      if ((value >> (16 + 4 * i) & 3) != 2 || !(value >> 2 * i & 3)) continue;
      if (!(cpu.cr4 & cpu::cr4::de)) return fail(XEN_EPERM);
      inert |= u64{3} << 2 * i;
    }
    state(cpu).dr7 = (value & 0xffff03ff) | 0x400;
    cpu.debug.dr7 = state(cpu).dr7 & ~inert;
  } else {
    return fail(XEN_ENODEV);
  }
  cpu::update_mode(cpu);
  return 0;
}

Status Domain::vm_assist(u64 command, u64 type) {
  constexpr u64 kKnown = u64{1} << VMASST_TYPE_4gb_segments | u64{1} << VMASST_TYPE_4gb_segments_notify |
                         u64{1} << VMASST_TYPE_writable_pagetables | u64{1} << VMASST_TYPE_pae_extended_cr3 |
                         u64{1} << VMASST_TYPE_architectural_iopl | u64{1} << VMASST_TYPE_runstate_update_flag |
                         u64{1} << VMASST_TYPE_m2p_strict;
  if (type >= 64 || !(kKnown >> type & 1)) return fail(XEN_EINVAL);
  if (command == VMASST_CMD_enable)
    assists_.fetch_or(u64{1} << type);
  else if (command == VMASST_CMD_disable)
    assists_.fetch_and(~(u64{1} << type));
  else
    return fail(XEN_ENOSYS);
  return 0;
}

// No device of the machine is this domain's.
Status Domain::physdev_op(cpu::Vcpu& cpu, u64 command, Gva argument) {
  if (command == PHYSDEVOP_set_iopl) {
    physdev_set_iopl_t op;
    if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
    if (op.iopl > 3) return fail(XEN_EINVAL);
    state(cpu).iopl = op.iopl;
    return 0;
  }
  if (command == PHYSDEVOP_set_iobitmap) {
    physdev_set_iobitmap_t op;
    if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
    if (op.nr_ports > 65536) return fail(XEN_EINVAL);
    state(cpu).io_bitmap = address_in(op.bitmap);
    state(cpu).io_ports = op.nr_ports;
    return 0;
  }
  return command == PHYSDEVOP_eoi || command == PHYSDEVOP_irq_status_query ? fail(XEN_EINVAL) : fail(XEN_ENOSYS);
}

}  // namespace trapline::para::xen
