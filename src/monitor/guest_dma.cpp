#include "monitor/guest_dma.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "channel/futex.h"

namespace trapline::monitor {

Result<CodeLines, VmError> CodeLines::create(u64 frames) {
  CodeLines lines;
  lines.fd_ = Fd{::memfd_create("code-lines", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  const u64 bytes = frames * sizeof(u64);
  void* at = MAP_FAILED;
  if (lines.fd_ && ::ftruncate(lines.fd_.get(), static_cast<off_t>(bytes)) == 0)
    at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, lines.fd_.get(), 0);
  if (at == MAP_FAILED)
    return Err{VmError{VmError::About::channel,
                       VmError::Reason::no_shared_memory,
                       {},
                       errno,
                       bytes,
                       "the map of code: no shared memory"}};
  ::fcntl(lines.fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  lines.words_ = static_cast<const std::atomic<u64>*>(at);
  lines.frames_ = frames;
  return lines;
}

CodeLines::CodeLines(CodeLines&& o) noexcept
    : fd_{std::move(o.fd_)}, words_{std::exchange(o.words_, nullptr)}, frames_{std::exchange(o.frames_, 0)} {}

CodeLines& CodeLines::operator=(CodeLines&& o) noexcept {
  std::swap(fd_, o.fd_);
  std::swap(words_, o.words_);
  std::swap(frames_, o.frames_);
  return *this;
}

CodeLines::~CodeLines() {
  if (words_) ::munmap(const_cast<std::atomic<u64>*>(words_), frames_ * sizeof(u64));
}

void GuestDma::attach(GuestMemory ram, CodeLines lines, channel::CodeWrites& core) {
  ram_ = std::move(ram);
  lines_ = std::move(lines);
  core_ = &core;
  asked_ = 0;
  abandoned_ = false;
}

void GuestDma::written(Gpa at, u64 length) {
  if (length == 0) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the bytes, then the lines: code_writes.h
  const u64 last = at.wrapping_add(length - 1).frame();
  for (u64 frame = at.frame(); frame <= last; frame++) {
    if (!lines_.any(frame)) continue;
    const Gpa from{std::max(at.raw, frame * kPageSize)};
    return ask(from, length - (from - at));
  }
}

// The hole is in the file, so it is in every mapping of it.
void GuestDma::give_back(Gpa at, u64 length) {
  const auto pages = ram_.bytes(at, length);
  if (!pages || at.page_offset() != 0 || length % kPageSize != 0) return;
  if (::madvise(pages->data(), length, MADV_REMOVE) == 0) written(at, length);
}

void GuestDma::ask(Gpa at, u64 length) {
  constexpr u64 kLookAgainNs = 20'000'000;  // has the core gone?
  constexpr unsigned kSpins = 200;
  std::lock_guard guard{asking_};
  core_->at.store(at.raw, std::memory_order_relaxed);
  core_->bytes.store(length, std::memory_order_relaxed);
  core_->asked.store(++asked_);
  channel::futex_wake(core_->asked);
  for (unsigned i = 0; !abandoned_; i++) {
    const u32 answered = core_->answered.load();
    if (answered == asked_) return;
    if (i < kSpins)
      channel::cpu_relax();
    else
      channel::futex_wait(core_->answered, answered, kLookAgainNs);
  }
}

}  // namespace trapline::monitor
