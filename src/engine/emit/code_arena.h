// Memory for generated host code, W^X: one memfd mapped twice, writable here and executable there; no page is both.
// Made before the sandbox closes. Not thread-safe: one per vCPU, or the caller locks.
#pragma once

#include <optional>
#include <span>

#include "base/types.h"

namespace trapline::engine {

class CodeArena {
 public:
  explicit CodeArena(u64 bytes);
  ~CodeArena();
  CodeArena(const CodeArena&) = delete;
  CodeArena& operator=(const CodeArena&) = delete;

  // Copies `code` in, aligned to 16. The executable address, or null when full: then flush all users and reset().
  const u8* add(std::span<const u8> code);
  void reset();
  u64 used() const { return used_; }
  u64 capacity() const { return size_; }

  // Does any live arena of this process hold the instruction at `pc`? Async-signal-safe: fault handlers ask.
  static bool holds(u64 pc);

 private:
  u8* write_ = nullptr;
  const u8* exec_ = nullptr;
  u64 size_ = 0, used_ = 0;
};

}  // namespace trapline::engine
