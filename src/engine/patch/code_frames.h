// The frames of guest RAM that cages of one vCPU execute, or may write to. A frame is looked at before it is executed,
// and marked in the CodeMap, so that a write to it is noticed first. One with instructions that show the host is
// executed from a copy in which they are traps.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "cpu/vcpu.h"
#include "engine/patch/page_scan.h"

namespace trapline::engine::patch {

class CodeFrames {
 public:
  // copies: room for pages with patches; `offset` of it in the cages' file.
  CodeFrames(cpu::Vcpu& cpu, const HostLacks& host, std::span<u8> copies, u64 offset);

  // May this frame be executed? Marks it.
  bool admits(Gpa page);
  // Where the copy of a frame that was admitted lies in the cages' file; ~0: it is executed as it is.
  u64 copy_of(Gpa page) const;
  // And right behind that one?
  bool admits_border(Gpa page, Gpa next) const;

  bool holds_code(Gpa page) const;
  void note_write(Gpa page) { flags_[page.frame()] |= 1; }
  void note_execute(Gpa page) { flags_[page.frame()] |= 2; }
  // Was it noted since the last time? Forgets it.
  bool forget_write(Gpa page) { return forget(page, 1); }
  bool forget_execute(Gpa page) { return forget(page, 2); }
  // Has it been overwritten after it was executed? As far as is remembered.
  bool rewritten(Gpa page) const { return rewrites_.count(page.frame()) != 0; }
  // Frames that were looked at and have been overwritten since.
  const std::vector<Gpa>& overwritten();

 private:
  bool forget(Gpa page, u8 flag) {
    const u64 frame = page.frame();
    if (frame >= flags_.size() || !(flags_[frame] & flag)) return false;
    flags_[frame] &= static_cast<u8>(~flag);
    return true;
  }
  struct Verdict {
    u32 generation = 0;
    u64 since = 0;  // TSC
    bool runs = false;
    u32 copy = kNone;
    std::vector<u16> sites = {};
  };
  static constexpr u32 kNone = ~0u;
  // Written and executed in turn: each turn costs faults on both sides, and flushes.
  struct Rewrites {
    u32 short_lives = 0;  // in a row: it was overwritten before it had run for as long as that costs
    u64 last = 0;         // TSC
  };
  void note_rewrite(u64 frame, const Verdict& verdict);
  bool restless(u64 frame);
  bool patch(Gpa page, Verdict& verdict);
  void release(const Verdict& verdict);
  cpu::Vcpu& cpu_;
  HostLacks host_;
  std::vector<u8> flags_;  // by frame
  std::unordered_map<u64, Verdict> known_;
  std::unordered_map<u64, Rewrites> rewrites_;
  std::vector<Gpa> changed_;
  std::span<u8> copies_;
  u64 copies_offset_;
  std::vector<u32> free_copies_, returned_;  // the latter may be mapped still
  u64 epoch_ = 0;
};

}  // namespace trapline::engine::patch
