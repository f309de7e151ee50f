// A lock whose holder may ask the monitor, or wait for other vCPUs. Who waits for it answers what those wait for.
#pragma once

#include <sched.h>

#include <mutex>

#include "cpu/code_map.h"
#include "cpu/vcpu.h"

namespace trapline::para::xen {

class ServingLock {
 public:
  ServingLock(std::mutex& lock, cpu::Vcpu& cpu) : lock_{lock} {
    while (!lock_.try_lock()) {
      if (cpu.code) cpu.code->serve(cpu);
      ::sched_yield();
    }
  }
  ~ServingLock() { lock_.unlock(); }
  ServingLock(const ServingLock&) = delete;

 private:
  std::mutex& lock_;
};

}  // namespace trapline::para::xen
