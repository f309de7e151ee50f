#include "engine/patch/code_frames.h"

#include <cstring>

#include "cpu/code_map.h"

namespace trapline::engine::patch {

bool CodeFrames::holds_code(u64 gpa_page) const { return cpu_.code->has_code(gpa_page / kPageSize); }

bool CodeFrames::admits(u64 gpa_page) {
  const u64 frame = gpa_page / kPageSize;
  if (const auto known = known_.find(frame);
      known != known_.end() && known->second.generation == cpu_.code->generation(frame).load(std::memory_order_acquire))
    return known->second.runs;
  const u32 generation = cpu_.code->mark_and_number(cpu_, frame, 0, kPageSize);
  const auto* bytes = reinterpret_cast<const u8*>(cpu_.ram->host(Gpa{gpa_page}));
  const bool runs = may_run_directly({bytes, kPageSize}, host_);
  known_[frame] = {generation, runs};
  return runs;
}

bool CodeFrames::admits_border(u64 gpa_page, u64 next_gpa_page) const {
  constexpr unsigned kSide = 3;
  u8 bytes[2 * kSide];
  std::memcpy(bytes, cpu_.ram->host(Gpa{gpa_page + kPageSize - kSide}), kSide);
  std::memcpy(bytes + kSide, cpu_.ram->host(Gpa{next_gpa_page}), kSide);
  return may_run_directly(bytes, host_);
}

const std::vector<u64>& CodeFrames::overwritten() {
  changed_.clear();
  const u64 now = cpu_.code->epoch();
  if (now == epoch_) return changed_;
  std::vector<u64> frames;
  if (cpu_.code->overwritten(epoch_, now, frames)) {
    for (const u64 frame : frames)
      if (known_.erase(frame)) changed_.push_back(frame * kPageSize);
  } else {
    std::erase_if(known_, [&](const auto& entry) {
      if (entry.second.generation == cpu_.code->generation(entry.first).load(std::memory_order_acquire)) return false;
      changed_.push_back(entry.first * kPageSize);
      return true;
    });
  }
  epoch_ = now;
  return changed_;
}

}  // namespace trapline::engine::patch
