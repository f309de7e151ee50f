// event_channel_op and sched_op: what a vCPU hears of, and how it waits.
#include "base/trace.h"
#include "para/xen/backend/back_ends.h"
#include "para/xen/console.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"
#include "para/xen/store.h"

namespace trapline::para::xen {

namespace {

constexpr u32 kMostPolled = 128;

// Reads the operation, runs it, and writes it back where it has results.
template <class Op, class Run>
Status with(cpu::Vcpu& cpu, Gva argument, bool answers, Run run) {
  Op op;
  if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
  const Status status = run(op);
  if (status == 0 && answers && !put(cpu, argument, op)) return fail(XEN_EFAULT);
  return status;
}

}  // namespace

Status Domain::event_channel_op(cpu::Vcpu& cpu, u64 command, Gva argument) {
  const auto under_lock = [this](auto run) {
    return [this, run](auto& op) {
      const std::lock_guard guard{events_lock_};
      return run(op);
    };
  };
  switch (command) {
    case EVTCHNOP_alloc_unbound:
      return with<evtchn_alloc_unbound>(cpu, argument, true,
                                        under_lock([this](auto& op) { return events_.alloc_unbound(op); }));
    case EVTCHNOP_bind_virq:
      return with<evtchn_bind_virq>(cpu, argument, true,
                                    under_lock([this](auto& op) { return events_.bind_virq(op); }));
    case EVTCHNOP_bind_ipi:
      return with<evtchn_bind_ipi>(cpu, argument, true, under_lock([this](auto& op) { return events_.bind_ipi(op); }));
    case EVTCHNOP_bind_vcpu:
      return with<evtchn_bind_vcpu>(cpu, argument, false,
                                    under_lock([this](auto& op) { return events_.bind_vcpu(op); }));
    case EVTCHNOP_close:
      return with<evtchn_close>(cpu, argument, false, under_lock([this](auto& op) { return events_.close(op.port); }));
    case EVTCHNOP_status:
      return with<evtchn_status>(cpu, argument, true, under_lock([this](auto& op) { return events_.status(op); }));
    case EVTCHNOP_unmask:
      return with<evtchn_unmask>(cpu, argument, false,
                                 under_lock([this](auto& op) { return events_.unmask(op.port); }));
    case EVTCHNOP_reset:
      return with<evtchn_reset>(cpu, argument, false, under_lock([this](auto& op) {
                                  return op.dom == DOMID_SELF || op.dom == kDomain ? events_.reset() : fail(XEN_EPERM);
                                }));
    case EVTCHNOP_send: {
      Channel to;
      const Status status = with<evtchn_send>(cpu, argument, false,
                                              under_lock([this, &to](auto& op) { return events_.send(op.port, &to); }));
      if (status == 0 && to.consumer != Consumer::none) sent(cpu, to);
      return status;
    }
    case EVTCHNOP_init_control: {
      // FIFO ports are not there; what would be wrong with them is told first, as by Xen.
      evtchn_init_control op;
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      if (op.vcpu >= vcpus()) return fail(XEN_ENOENT);
      if (op.offset > kPageSize - sizeof(evtchn_fifo_control_block) || op.offset % 8 ||
          !frames_.owned(Mfn{op.control_gfn}))
        return fail(XEN_EINVAL);
      return fail(XEN_ENOSYS);
    }
    case EVTCHNOP_bind_interdomain:
      return fail(XEN_ESRCH);  // no other domain has a port to bind to
    case EVTCHNOP_bind_pirq:
      return fail(XEN_EPERM);
    default:
      return fail(XEN_ENOSYS);
  }
}

void Domain::sent(cpu::Vcpu& cpu, const Channel& to) {
  switch (to.consumer) {
    case Consumer::console:
      console_->notified(cpu);
      break;
    case Consumer::store:
      store_->notified(cpu);
      break;
    case Consumer::block:
    case Consumer::network:
      back_ends_->notified(cpu, to.instance);
      break;
    default:
      break;
  }
}

// -- sched_op

Status Domain::sched_op(cpu::Vcpu& cpu, u64 command, Gva argument) {
  switch (command) {
    case SCHEDOP_yield:
      if (cpu.code) cpu.code->step_aside(cpu);
      return 0;
    case SCHEDOP_block:
      return block(cpu);
    case SCHEDOP_poll:
      return poll(cpu, argument);
    case SCHEDOP_shutdown:
    case SCHEDOP_shutdown_code: {
      sched_shutdown_t op;
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      return shutdown(cpu, op.reason);
    }
    case SCHEDOP_remote_shutdown:
      return fail(XEN_ESRCH);
    case SCHEDOP_watchdog:
    case SCHEDOP_pin_override:
      return fail(XEN_EPERM);
    default:
      return fail(XEN_ENOSYS);
  }
}

// Upcalls are open from here on, so that none can slip in between the guest's look and its sleep.
Status Domain::block(cpu::Vcpu& cpu) {
  set_upcall_mask(cpu, 0);
  if (events_.upcall(cpu.index)) return 0;
  cpu.activity = cpu::Activity::halted;
  cpu.count.halts++;
  change_runstate(cpu, RUNSTATE_blocked);
  // What was posted before the vCPU counted as halted is looked at once more.
  cpu.attention->fetch_or(cpu::attention::interrupt);
  return 0;
}

bool Domain::poll_satisfied(cpu::Vcpu& cpu) {
  const VcpuState& v = state(cpu);
  if (v.poll_until <= cpu.vm_tsc()) return true;
  return std::any_of(v.polled.begin(), v.polled.end(), [this](Port p) { return events_.pending(p); });
}

Status Domain::poll(cpu::Vcpu& cpu, Gva argument) {
  sched_poll_t op;
  if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
  if (op.nr_ports > kMostPolled) return fail(XEN_EINVAL);
  VcpuState& v = state(cpu);
  const Gva list = address_in(op.ports);
  v.polled.clear();
  for (u32 i = 0; i < op.nr_ports; i++) {
    Port port;
    if (!get(cpu, list.wrapping_add(i * sizeof port), port)) return fail(XEN_EFAULT);
    if (port == 0 || port >= EventChannels::kPorts) return fail(XEN_EINVAL);
    v.polled.push_back(port);
  }
  v.poll_until = op.timeout == 0 ? ~u64{0} : ticks_at(op.timeout);
  events_.set_polling(cpu.index, true);  // before the look at the ports
  if (poll_satisfied(cpu) || events_.upcall(cpu.index)) {
    events_.set_polling(cpu.index, false);
    v.poll_until = ~u64{0};
    return 0;
  }
  v.polling = true;
  arm(cpu);
  cpu.activity = cpu::Activity::halted;
  cpu.count.halts++;
  change_runstate(cpu, RUNSTATE_blocked);
  cpu.attention->fetch_or(cpu::attention::interrupt);
  return 0;
}

Status Domain::shutdown(cpu::Vcpu& cpu, u32 reason) {
  TRACE(exits, "xen: shutdown, reason {}", reason);
  switch (reason) {
    case SHUTDOWN_poweroff:
      host_.power_off(cpu);
      return 0;
    case SHUTDOWN_reboot:
    case SHUTDOWN_watchdog:
      host_.reboot(cpu);
      return 0;
    case SHUTDOWN_suspend:
      return fail(XEN_EINVAL);  // nothing could resume it
    case SHUTDOWN_crash:
      crash(cpu, "the guest's kernel has told the hypervisor that it crashed");
    default:
      return fail(XEN_EINVAL);
  }
}

}  // namespace trapline::para::xen
