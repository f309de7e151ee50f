// vcpu_op: further vCPUs, and the areas in the guest's memory where each is told of time and of itself.
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/descriptor.h"
#include "cpu/fpu.h"
#include "para/xen/bounce.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

Status Domain::vcpu_op(cpu::Vcpu& cpu, u64 command, u64 vcpu, Gva argument) {
  if (vcpu >= vcpu_.size()) return fail(XEN_ENOENT);
  const u32 number = static_cast<u32>(vcpu);
  VcpuState& v = *vcpu_[number];
  switch (command) {
    case VCPUOP_initialise:
      return initialise(cpu, number, argument);
    case VCPUOP_up:
      return bring_up(number);
    case VCPUOP_down:
      v.up = false;
      if (number == cpu.index) {
        cpu.activity = cpu::Activity::wait_for_sipi;
        change_runstate(cpu, RUNSTATE_offline);
      } else {
        notify(number);
      }
      return 0;
    case VCPUOP_is_up:
      return v.up ? 1 : 0;
    case VCPUOP_get_runstate_info:
      return put(cpu, argument, v.runstate) ? 0 : fail(XEN_EFAULT);
    case VCPUOP_register_runstate_memory_area: {
      vcpu_register_runstate_memory_area_t area;
      if (!get(cpu, argument, area)) return fail(XEN_EFAULT);
      const Gva area_at{area.addr.p};
      if (!guest_range(area_at, sizeof(vcpu_runstate_info))) return fail(XEN_EFAULT);
      if (number == cpu.index && !put(cpu, area_at, v.runstate)) return fail(XEN_EFAULT);
      v.runstate_at = area_at;
      return 0;
    }
    case VCPUOP_register_vcpu_info:
      return register_info(cpu, number, argument);
    case VCPUOP_register_vcpu_time_memory_area: {
      vcpu_register_time_memory_area_t area;
      if (!get(cpu, argument, area)) return fail(XEN_EFAULT);
      const Gva area_at{area.addr.p};
      if (!put(cpu, area_at, time_line(cpu))) return fail(XEN_EFAULT);
      v.time_at = area_at;
      return 0;
    }
    case VCPUOP_set_periodic_timer: {
      vcpu_set_periodic_timer_t op;
      if (number != cpu.index) return fail(XEN_EINVAL);
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      if (op.period_ns < 1'000'000) return fail(XEN_EINVAL);
      v.periodic = clock_.ns_to_tsc(op.period_ns);
      v.next_period = cpu.vm_tsc() + v.periodic;
      arm(cpu);
      return 0;
    }
    case VCPUOP_stop_periodic_timer:
      if (number != cpu.index) return fail(XEN_EINVAL);
      v.periodic = 0;
      v.next_period = ~u64{0};
      arm(cpu);
      return 0;
    case VCPUOP_set_singleshot_timer: {
      vcpu_set_singleshot_timer_t op;
      if (number != cpu.index) return fail(XEN_EINVAL);
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      if ((op.flags & VCPU_SSHOTTMR_future) && op.timeout_abs_ns < system_time(cpu)) return fail(XEN_ETIME);
      set_timer(cpu, op.timeout_abs_ns);
      return 0;
    }
    case VCPUOP_stop_singleshot_timer:
      if (number != cpu.index) return fail(XEN_EINVAL);
      v.singleshot = ~u64{0};
      arm(cpu);
      return 0;
    case VCPUOP_send_nmi:
      return v.up ? 0 : fail(XEN_EINVAL);
    case VCPUOP_get_physid:
      return fail(XEN_EINVAL);
    default:
      return fail(XEN_ENOSYS);
  }
}

// Writable for the guest as long as it lives there, so no page table can take its place.
Status Domain::register_info(cpu::Vcpu& cpu, u32 vcpu, Gva argument) {
  vcpu_register_vcpu_info_t op;
  if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
  if (op.offset > kPageSize - sizeof(vcpu_info) || op.offset % sizeof(u64)) return fail(XEN_EINVAL);
  const Locked locked{*this, cpu};
  VcpuState& v = *vcpu_[vcpu];
  if (v.info_frame != kNoMfn) return fail(XEN_EINVAL);
  if (vcpu != cpu.index && v.up) return fail(XEN_EINVAL);
  const Mfn mfn{op.mfn};
  if (!frames_.owned(mfn) || !frames_.get(cpu, mfn, Type::writable)) return fail(XEN_EINVAL);
  v.info_frame = mfn;
  const std::lock_guard guard{events_lock_};
  const Gpa to = gpa(mfn).wrapping_add(op.offset), from = events_.vcpu_info(vcpu);
  vcpu_info fresh{};
  fresh.evtchn_upcall_mask = 1;
  if (from.raw != 0) std::memcpy(&fresh, ram_.host(from), sizeof fresh);
  // Whatever is pending is marked anew: the selector's bits may have been set in the old place since.
  fresh.evtchn_pending_sel = ~u64{0};
  fresh.evtchn_upcall_pending = 1;
  std::memcpy(ram_.host(to), &fresh, sizeof fresh);
  events_.place_vcpu_info(vcpu, to);
  write_time(cpu, vcpu);
  return 0;
}

Status Domain::initialise(cpu::Vcpu& cpu, u32 vcpu, Gva argument) {
  VcpuState& v = *vcpu_[vcpu];
  auto context = std::make_unique<vcpu_guest_context>();
  if (!get(cpu, argument, *context)) return fail(XEN_EFAULT);
  const Locked locked{*this, cpu};
  if (v.initialised) return fail(XEN_EEXIST);
  const vcpu_guest_context& c = *context;
  const auto canonical = [](u64 address) { return cpu::canonical(address); };
  for (const u64 address : {c.event_callback_eip, c.failsafe_callback_eip, c.syscall_callback_eip, c.fs_base,
                            c.gs_base_kernel, c.gs_base_user, c.kernel_sp, static_cast<u64>(c.user_regs.rip)})
    if (!canonical(address)) return fail(XEN_EINVAL);
  for (const trap_info& trap : c.trap_ctxt)
    if (!canonical(trap.address)) return fail(XEN_EINVAL);
  if (!(c.flags & VGCF_in_kernel) || c.gdt_ents > FIRST_RESERVED_GDT_ENTRY || c.ldt_ents != 0) return fail(XEN_EINVAL);
  const Mfn root{xen_cr3_to_pfn(c.ctrlreg[3])}, user{xen_cr3_to_pfn(c.ctrlreg[1] & ~u64{1})};
  if (!frames_.owned(root) || !frames_.get(cpu, root, Type::l4)) return fail(XEN_EINVAL);
  if (user != kNoMfn && (!frames_.owned(user) || !frames_.get(cpu, user, Type::l4))) {
    frames_.put(cpu, root, Type::l4);
    return fail(XEN_EINVAL);
  }
  Mfn gdt[kGdtGuestPages] = {};
  std::transform(c.gdt_frames, c.gdt_frames + kGdtGuestPages, gdt, [](u64 mfn) { return Mfn{mfn}; });
  if (!install_gdt(cpu, vcpu, gdt, static_cast<u32>(c.gdt_ents))) {
    frames_.put(cpu, root, Type::l4);
    if (user != kNoMfn) frames_.put(cpu, user, Type::l4);
    return fail(XEN_EINVAL);
  }
  v.kernel_root = root;
  v.user_root = user;
  if (user != kNoMfn) std::copy_n(frames_.table(user) + kEntries / 2, v.user_upper.size(), v.user_upper.begin());
  v.kernel_sp = Gva{c.kernel_sp};
  std::copy(c.trap_ctxt, c.trap_ctxt + v.traps.size(), v.traps.begin());
  v.event = {Gva{c.event_callback_eip}, true};
  v.failsafe = {Gva{c.failsafe_callback_eip}, (c.flags & VGCF_failsafe_disables_events) != 0};
  v.syscall = {Gva{c.syscall_callback_eip}, (c.flags & VGCF_syscall_disables_events) != 0};
  v.context = std::move(context);
  v.initialised = true;
  return 0;
}

Status Domain::bring_up(u32 vcpu) {
  VcpuState& v = *vcpu_[vcpu];
  if (!v.initialised) return fail(XEN_EINVAL);
  if (v.up.exchange(true)) return 0;
  cpu::Vcpu* cpu = cpus_[vcpu];
  if (!cpu) return fail(XEN_EINVAL);
  cpu->attention->fetch_or(cpu::attention::sipi);
  host_.wake(vcpu);
  return 0;
}

// On the vCPU's own thread. A vCPU that was taken down and comes again goes on where it was.
bool Domain::start(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  if (!v.up) return false;
  if (v.context) {
    const std::unique_ptr<vcpu_guest_context> c = std::move(v.context);
    enter_long_mode(cpu);
    const cpu_user_regs& r = c->user_regs;
    const u64 registers[16] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                               r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
    std::copy(registers, registers + 16, cpu.gpr);
    cpu.rip = r.rip;
    cpu.set_rflags_raw((static_cast<u32>(r.rflags) & ~(cpu::flag::iopl | cpu::flag::vm | cpu::flag::nt)) |
                       cpu::flag::if_);
    v.iopl = static_cast<u32>(r.rflags) >> 12 & 3;
    cpu.segment(cpu::Seg::fs).base = c->fs_base;
    cpu.segment(cpu::Seg::gs).base = c->gs_base_kernel;
    cpu.msr.kernel_gs_base = c->gs_base_user;
    set_roots(cpu, v);
    cpu::tlb_flush_all(cpu);
    if (const auto cs = static_cast<u16>(r.cs | 3), ss = static_cast<u16>(r.ss | 3);
        !load_return_segments(cpu, cs, ss)) {
      cpu::cs_of(cpu) = flat_code64();
      cpu::ss_of(cpu) = flat_stack();
    }
    set_upcall_mask(cpu, 1);
    cpu::update_mode(cpu);
  }
  cpu.activity = cpu::Activity::running;
  change_runstate(cpu, RUNSTATE_running);
  TRACE(exits, "xen: vCPU {} starts at {:#x}", cpu.index, cpu.rip);
  return true;
}

}  // namespace trapline::para::xen
