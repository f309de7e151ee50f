#include "engine/emit/code_arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/host_refused.h"
#include "base/invariant.h"

namespace trapline::engine {

namespace {

// Executable ranges of the live arenas, for CodeArena::holds(). A slot is free while `begin` is 0; `end` is written
// first.
struct Range {
  std::atomic<u64> begin{0}, end{0};
};
constexpr unsigned kMaxArenas = 512;
Range ranges[kMaxArenas];

void publish(u64 begin, u64 bytes) {
  for (Range& r : ranges) {
    u64 expected = 0;
    // 1 claims the slot: no code lives in page 0.
    if (!r.begin.compare_exchange_strong(expected, 1)) continue;
    r.end.store(begin + bytes, std::memory_order_relaxed);
    r.begin.store(begin, std::memory_order_release);
    return;
  }
  INVARIANT(false, "more than {} code arenas", kMaxArenas);
}

void withdraw(u64 begin) {
  for (Range& r : ranges) {
    if (r.begin.load(std::memory_order_relaxed) != begin) continue;
    r.end.store(0, std::memory_order_relaxed);
    r.begin.store(0, std::memory_order_release);
    return;
  }
  INVARIANT(false, "no code arena begins at {:#x}", begin);
}

[[noreturn]] void refused(const char* step, u64 bytes) {
  throw HostRefused{fmt::format("no memory for code: {} of {} bytes: {}; `trapline doctor` says what this host offers",
                                step, bytes, std::strerror(errno))};
}

}  // namespace

CodeArena::CodeArena(u64 bytes) : size_{(bytes + kPageSize - 1) & kPageMask} {
  const int fd = memfd_create("trapline-code", MFD_CLOEXEC);
  if (fd < 0) refused("memfd_create", size_);
  if (ftruncate(fd, static_cast<off_t>(size_)) != 0) refused("ftruncate", size_);
  void* write = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (write == MAP_FAILED) refused("mmap", size_);
  void* exec = mmap(nullptr, size_, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  if (exec == MAP_FAILED) refused("executable mmap", size_);
  close(fd);
  write_ = static_cast<u8*>(write);
  exec_ = static_cast<const u8*>(exec);
  publish(reinterpret_cast<u64>(exec_), size_);
}

CodeArena::~CodeArena() {
  withdraw(reinterpret_cast<u64>(exec_));
  munmap(write_, size_);
  munmap(const_cast<u8*>(exec_), size_);
}

const u8* CodeArena::add(std::span<const u8> code) {
  const u64 start = (used_ + 15) & ~u64{15};
  if (start > size_ || code.size() > size_ - start) return nullptr;
  std::memset(write_ + used_, 0xCC, start - used_);  // INT3 between pieces: a stray jump is noticed
  std::memcpy(write_ + start, code.data(), code.size());
  used_ = start + code.size();
  return exec_ + start;
}

void CodeArena::reset() { used_ = 0; }

bool CodeArena::holds(u64 pc) {
  for (const Range& r : ranges) {
    const u64 begin = r.begin.load(std::memory_order_acquire);
    if (begin > 1 && pc >= begin && pc < r.end.load(std::memory_order_relaxed)) return true;
  }
  return false;
}

}  // namespace trapline::engine
