// Letting the VM go, and telling why it stopped.
#include <fmt/format.h>

#include "monitor/gdb_stub.h"

namespace trapline::monitor::gdb {

using channel::DebugRegisters;
using channel::DebugReport;
using channel::StopKind;

namespace {
constexpr int kSigInt = 2, kSigTrap = 5, kSigSegv = 11;
}

// -- Going and stopping
void Stub::resume(u64 run_mask, u64 step_mask) {
  running_ = true;
  interrupted_ = false;
  target_.resume(run_mask, step_mask, settings_.step_interrupts);
}

// c [addr], s [addr], C sig[;addr], S sig[;addr]. A signal means nothing to a machine.
void Stub::go(std::string_view packet) {
  const char kind = packet.front();
  packet.remove_prefix(1);
  if (kind == 'C' || kind == 'S') {
    if (!take_number(packet) || (!packet.empty() && !take_char(packet, ';'))) return error(kInvalid);
  }
  const u32 vcpu = to_run_.value_or(current_);
  if (!packet.empty()) {
    const auto address = take_number(packet);
    DebugRegisters r;
    if (!address || !packet.empty() || !target_.read_registers(vcpu, r)) return error(kInvalid);
    r.pc = Gva{*address};
    if (!target_.write_registers(vcpu, r)) return error(kInvalid);
  }
  if (kind == 's' || kind == 'S') return resume(0, u64{1} << vcpu);
  resume(to_run_ ? u64{1} << *to_run_ : everyone(), 0);
}

// ;action[:thread]...  The first action that names a thread, or none, is that thread's.
void Stub::go_by_thread(std::string_view actions) {
  u64 run = 0, step = 0, decided = 0;
  while (take_char(actions, ';')) {
    std::string_view action = actions.substr(0, actions.find(';'));
    actions.remove_prefix(action.size());
    if (action.empty()) return error(kInvalid);
    const char kind = action.front();
    action.remove_prefix(1);
    if ((kind == 'C' || kind == 'S') && !take_number(action)) return error(kInvalid);
    u64 threads = everyone();
    const bool all = action.empty() || action == ":-1" || action == ":0";
    if (!all && !take_char(action, ':')) return error(kInvalid);
    if (!all) {
      const auto vcpu = vcpu_of(action);
      if (!vcpu) return error(kNotFound);
      threads = u64{1} << *vcpu;
    }
    threads &= ~decided;
    decided |= threads;
    if (kind == 'c' || kind == 'C')
      run |= threads;
    else if (kind == 's' || kind == 'S')
      step |= threads;
    else
      return error(kInvalid);
  }
  if (!actions.empty() || (run | step) == 0) return error(kInvalid);
  resume(run, step);
}

void Stub::stopped(const Stop& stop) {
  if (!running_) return;
  running_ = false;
  stop_ = stop;
  if (stop.report != DebugReport::none || stop.vcpu >= target_.vcpus())
    current_ = stop.vcpu < target_.vcpus() ? stop.vcpu : 0;
  stop_.vcpu = current_;
  to_run_.reset();
  reply(stop_reply());
}

std::string Stub::stop_reply() {
  const int signal = stop_.report == DebugReport::crash                  ? kSigSegv
                     : interrupted_ && stop_.report == DebugReport::none ? kSigInt
                                                                         : kSigTrap;
  return fmt::format("T{:02x}thread:{:x};{}", signal, stop_.vcpu + 1, stop_reason());
}

std::string Stub::stop_reason() {
  if (stop_.report == DebugReport::watchpoint) {
    const char* name = stop_.kind == StopKind::write ? "watch" : stop_.kind == StopKind::read ? "rwatch" : "awatch";
    return fmt::format("{}:{:x};", name, stop_.address.raw);
  }
  DebugRegisters r;
  if (stop_.report != DebugReport::breakpoint || !target_.read_registers(stop_.vcpu, r)) return {};
  if (tells_swbreak_ && has_point('0', r.pc)) return "swbreak:;";
  if (tells_hwbreak_ && has_point('1', r.pc)) return "hwbreak:;";
  return {};
}

void Stub::ended(int code, int signal) {
  if (running_) reply(signal ? fmt::format("X{:02x}", signal & 0xff) : fmt::format("W{:02x}", code & 0xff));
  closed_ = true;
}

void Stub::detach() {
  points_.clear();
  publish_points();
  resume(everyone(), 0);
  ok();
  closed_ = true;
}

void Stub::kill() {
  closed_ = true;
  target_.end();
}

}  // namespace trapline::monitor::gdb
