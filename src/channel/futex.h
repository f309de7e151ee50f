// Futexes on words shared between processes, and the one question a spinner asks: is there a CPU to spin on?
#pragma once

#include <atomic>

#include "base/types.h"

namespace trapline::channel {

// Sleeps while *word == expected, at most `timeout_ns` (~0: no limit). May return early for no reason.
void futex_wait(std::atomic<u32>& word, u32 expected, u64 timeout_ns = ~u64{0});
void futex_wake(std::atomic<u32>& word, int waiters = 1);

// CPUs this process may run on; asked once, before the sandbox closes.
unsigned usable_cpus();

inline void cpu_relax() { __builtin_ia32_pause(); }

}  // namespace trapline::channel
