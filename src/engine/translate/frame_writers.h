// By guest frame: where the write tables may have an entry for it, so that a frame that comes to hold code loses them
// without a look at all entries. Two places a frame, the kernel's own mapping and a process's; more are told apart only
// by looking everywhere. Owned by the vCPU's thread. Memory: 16 bytes a frame, as frames are written to.
#pragma once

#include <sys/mman.h>

#include "base/addr.h"

namespace trapline::engine::translate {

// A page in a view. 0 is none: page 0 of view 0 is kept with the bit above.
struct WriterPlace {
  u64 raw = 0;
  static WriterPlace of(u8 view, Gva linear) { return {(linear.raw & 0xfffffffff000) | 0x800 | view}; }
  u8 view() const { return raw & 3; }
  Gva linear() const { return Gva{static_cast<u64>(static_cast<i64>((raw & 0xfffffffff000) << 16) >> 16)}; }
  bool operator==(const WriterPlace&) const = default;
};

class FrameWriters {
 public:
  struct Frame {
    WriterPlace place[2];
    static constexpr u64 kMany = 1;  // as place[1].raw: more than two
    bool any() const { return place[0].raw || place[1].raw; }
    bool many() const { return place[1].raw == kMany; }
  };
  // `frames`: of the VM's RAM. Error: none; without address space nothing is kept, and every frame counts as many().
  explicit FrameWriters(u64 frames) : frames_{frames} {
    if (frames == 0) return;
    void* p = mmap(nullptr, frames * sizeof(Frame), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p != MAP_FAILED) frame_ = static_cast<Frame*>(p);
  }
  ~FrameWriters() {
    if (frame_) munmap(frame_, frames_ * sizeof(Frame));
  }
  FrameWriters(const FrameWriters&) = delete;

  // Null: not kept.
  Frame* at(u64 frame) const { return frame_ && frame < frames_ ? &frame_[frame] : nullptr; }

 private:
  u64 frames_;
  Frame* frame_ = nullptr;
};

}  // namespace trapline::engine::translate
