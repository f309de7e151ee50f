// The monitor's threads around a machine, without a core process: tests play the core.
#pragma once

#include <thread>
#include <vector>

#include "channel/futex.h"
#include "monitor/machine_state.h"

namespace trapline::monitor {

class ServiceThreads {
 public:
  // `m` is attached to its channel.
  explicit ServiceThreads(MachineState& m) : m_{m} {
    for (u32 i = 0; i < m.channel.vcpus(); i++) threads_.emplace_back([&m, i] { serve_vcpu(m, i); });
    threads_.emplace_back([&m] { run_console(m); });
    if (!m.deterministic) threads_.emplace_back([&m] { run_timer(m); });
  }
  // Ends the service; whoever plays the core has ended.
  ~ServiceThreads() {
    m_.stop_core();
    {
      std::lock_guard guard{m_.lock};
      m_.closing = true;
    }
    m_.timer.notify_all();
    m_.input.let_go(true);
    for (u32 i = 0; i < m_.channel.vcpus(); i++) {
      m_.channel.vcpu(i).turn.store(static_cast<u32>(channel::Turn::closed));
      channel::futex_wake(m_.channel.vcpu(i).turn);
    }
    m_.channel.vm().serial.wake();
    for (auto& t : threads_) t.join();
  }
  ServiceThreads(const ServiceThreads&) = delete;

 private:
  MachineState& m_;
  std::vector<std::thread> threads_;
};

}  // namespace trapline::monitor
