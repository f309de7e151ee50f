// Locked accesses that one host instruction cannot do, and those that this host does not let it do: across a cache line
// where the host kernel ends processes for it (split_lock_detect=fatal; Linux, Documentation/arch/x86/buslock.rst).
#pragma once

#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

// Held around a locked access that no single host instruction can do (across pages, on code pages, device memory). Who waits
// for it answers what other vCPUs ask meanwhile (CodeMap::serve): who has it may wait for such answers itself.
struct SplitLock {
  explicit SplitLock(Vcpu& cpu);
  ~SplitLock();
};

// Does this host raise SIGBUS for a locked access across a cache line? What engines go by; set before vCPUs run.
void set_split_locks_trap(bool trap);
bool split_locks_trap();

// In place of the host's LOCK CMPXCHG on such bytes: atomic against other such accesses only.
bool compare_exchange_in_turn(void* cell, void* expected, const void* wanted, unsigned size);

inline bool crosses_line(const void* p, unsigned size) { return (reinterpret_cast<u64>(p) & 63) + size > 64; }

// `*cell` becomes `wanted` if it is `*expected`; else *expected becomes what it is. May fail for no reason.
template <class T>
inline bool compare_exchange(T* cell, T* expected, T wanted) {
  if (crosses_line(cell, sizeof(T)) && split_locks_trap()) [[unlikely]]
    return compare_exchange_in_turn(cell, expected, &wanted, sizeof(T));
  return __atomic_compare_exchange_n(cell, expected, wanted, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

}  // namespace trapline::cpu
