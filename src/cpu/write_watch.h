// Who watches guest memory being written (--verify). While there is one, no entry of a TLB has write permission before
// the MMU's slow path has announced a write to the page, so the watcher may take permissions away again and hears of
// the next write.
#pragma once

#include "base/addr.h"
#include "base/types.h"

namespace trapline::cpu {

struct TlbEntry;

struct WriteWatch {
  virtual ~WriteWatch() = default;
  // `page` is about to be written; `entry` has the permission from now on.
  virtual void writing(Gpa page, TlbEntry& entry) = 0;
  // A page walk has set these bits (A, D) in the `bytes` wide entry of a guest's table.
  virtual void marked(void* entry, unsigned bytes, u64 bits) = 0;
  // An access to device memory. True: it must not happen; reads give 0.
  virtual bool device() = 0;
};

// One for the process, on the thread that runs vCPUs: set before it starts.
inline WriteWatch* write_watch = nullptr;

}  // namespace trapline::cpu
