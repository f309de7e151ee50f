// Holding the domain's lock. Who waits for it answers the rendezvous that its holder may be waiting for.
#pragma once

#include <sched.h>

#include "cpu/code_map.h"
#include "para/xen/domain.h"

namespace trapline::para::xen {

class Domain::Locked {
 public:
  Locked(Domain& domain, cpu::Vcpu& cpu) : lock_{domain.lock_} {
    for (unsigned tries = 1; !lock_.try_lock(); tries++) {
      if (cpu.code) cpu.code->serve(cpu);
      if (tries % 64 == 0) ::sched_yield();
    }
  }
  ~Locked() { lock_.unlock(); }
  Locked(const Locked&) = delete;

 private:
  std::mutex& lock_;
};

}  // namespace trapline::para::xen
