// The monitor's own mapping of guest RAM, for devices, and its side of channel/code_writes.h.
#pragma once

#include <atomic>
#include <mutex>

#include "base/guest_memory.h"
#include "channel/code_writes.h"
#include "devices/virtio/dma.h"
#include "monitor/files.h"

namespace trapline::monitor {

// The words of code_writes.h as the monitor has them: read-only.
class CodeLines {
 public:
  static Result<CodeLines, VmError> create(u64 frames);
  CodeLines() = default;
  CodeLines(CodeLines&& o) noexcept;
  CodeLines& operator=(CodeLines&& o) noexcept;
  ~CodeLines();

  int fd() const { return fd_.get(); }
  bool any(u64 frame) const { return frame < frames_ && words_[frame].load(std::memory_order_relaxed) != 0; }

 private:
  Fd fd_;
  const std::atomic<u64>* words_ = nullptr;
  u64 frames_ = 0;
};

class GuestDma final : public devices::virtio::Dma {
 public:
  // Of a new core. No device runs.
  void attach(GuestMemory ram, CodeLines lines, channel::CodeWrites& core);
  // The core is gone, or will be: nobody waits for its answers any more. Any thread.
  void abandon() { abandoned_ = true; }

  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram_.bytes(at, length); }
  void written(Gpa at, u64 length) override;
  void give_back(Gpa at, u64 length) override;

 private:
  void ask(Gpa at, u64 length);

  GuestMemory ram_;
  CodeLines lines_;
  channel::CodeWrites* core_ = nullptr;
  std::mutex asking_;
  u32 asked_ = 0;  // under asking_
  std::atomic<bool> abandoned_{false};
};

}  // namespace trapline::monitor
