// The frames of guest RAM that cages of one vCPU execute, or may write to. A frame is looked at before it is executed,
// and marked in the CodeMap, so that a write to it is noticed first.
#pragma once

#include <unordered_map>
#include <vector>

#include "cpu/vcpu.h"
#include "engine/patch/page_scan.h"

namespace trapline::engine::patch {

class CodeFrames {
 public:
  CodeFrames(cpu::Vcpu& cpu, const HostLacks& host) : cpu_{cpu}, host_{host}, flags_(cpu.ram ? cpu.ram->frames() : 0) {}

  // May this frame be executed? Marks it.
  bool admits(u64 gpa_page);
  // And right behind that one?
  bool admits_border(u64 gpa_page, u64 next_gpa_page) const;

  bool holds_code(u64 gpa_page) const;
  void note_write(u64 gpa_page) { flags_[gpa_page / kPageSize] |= 1; }
  void note_execute(u64 gpa_page) { flags_[gpa_page / kPageSize] |= 2; }
  // Was it noted since the last time? Forgets it.
  bool forget_write(u64 gpa_page) { return forget(gpa_page, 1); }
  bool forget_execute(u64 gpa_page) { return forget(gpa_page, 2); }
  // Frames that were looked at and have been overwritten since.
  const std::vector<u64>& overwritten();

 private:
  bool forget(u64 gpa_page, u8 flag) {
    const u64 frame = gpa_page / kPageSize;
    if (frame >= flags_.size() || !(flags_[frame] & flag)) return false;
    flags_[frame] &= static_cast<u8>(~flag);
    return true;
  }
  struct Verdict {
    u32 generation;
    bool runs;
  };
  cpu::Vcpu& cpu_;
  HostLacks host_;
  std::vector<u8> flags_;  // by frame
  std::unordered_map<u64, Verdict> known_;
  std::vector<u64> changed_;
  u64 epoch_ = 0;
};

}  // namespace trapline::engine::patch
