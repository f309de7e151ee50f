#include "engine/patch/code_frames.h"

#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "base/trace.h"
#include "cpu/code_map.h"

namespace trapline::engine::patch {

namespace {

constexpr u64 kShortLife = 800'000;        // ticks, some 0.4 ms
constexpr u32 kOften = 4;                  // short lives in a row
constexpr u64 kShortestRest = 20'000'000;  // some 10 ms; twice that after each further short life
constexpr u32 kLongestRest = 4;            // doublings

}  // namespace

bool CodeFrames::holds_code(Gpa page) const { return cpu_.code->has_code(page.frame()); }

CodeFrames::CodeFrames(cpu::Vcpu& cpu, const HostLacks& host, std::span<u8> copies, u64 offset)
    : cpu_{cpu}, host_{host}, flags_(cpu.ram ? cpu.ram->frames() : 0), copies_{copies}, copies_offset_{offset} {
  for (u32 i = static_cast<u32>(copies.size() / kPageSize); i-- > 0;) free_copies_.push_back(i);
}

bool CodeFrames::patch(Gpa page, Verdict& verdict) {
  if (free_copies_.empty()) return false;
  verdict.copy = free_copies_.back();
  free_copies_.pop_back();
  u8* const copy = copies_.data() + u64{verdict.copy} * kPageSize;
  std::memcpy(copy, cpu_.ram->host(page), kPageSize);
  for (const u16 site : verdict.sites) copy[site] = 0xcc;
  return true;
}

void CodeFrames::release(const Verdict& verdict) {
  if (verdict.copy != kNone) returned_.push_back(verdict.copy);
}

void CodeFrames::note_rewrite(u64 frame, const Verdict& verdict) {
  constexpr std::size_t kMost = 4096;
  if (rewrites_.size() >= kMost) rewrites_.clear();
  Rewrites& r = rewrites_[frame];
  r.last = __rdtsc();
  r.short_lives = r.last - verdict.since < kShortLife ? r.short_lives + 1 : 0;
}

// Trampolines on the stack, code that a program changes each time before it runs it. Nothing of such a frame is marked,
// so that writing is free; the interpreter executes what is there.
bool CodeFrames::restless(u64 frame) {
  const auto found = rewrites_.find(frame);
  if (found == rewrites_.end() || found->second.short_lives < kOften) return false;
  const u64 rest = kShortestRest << std::min(found->second.short_lives - kOften, kLongestRest);
  return __rdtsc() - found->second.last < rest;
}

bool CodeFrames::admits(Gpa page) {
  const u64 frame = page.frame();
  const auto known = known_.find(frame);
  if (known != known_.end()) {
    if (known->second.generation == cpu_.code->generation(frame).load(std::memory_order_acquire))
      return known->second.runs;
    return false;  // overwritten, and not out of every cage yet
  }
  if (restless(frame)) return false;
  Verdict verdict;
  verdict.generation = cpu_.code->mark_and_number(cpu_, frame, 0, kPageSize);
  const auto* bytes = reinterpret_cast<const u8*>(cpu_.ram->host(page));
  PageScan scan = scan_page(std::span<const u8, kPageSize>{bytes, kPageSize}, host_);
  verdict.sites = std::move(scan.sites);
  verdict.runs = !scan.refused && (verdict.sites.empty() || patch(page, verdict));
  TRACE(cages, "frame {}: {}, {} patches", page, verdict.runs ? "runs" : "is refused", verdict.sites.size());
  verdict.since = __rdtsc();
  return known_.emplace(frame, std::move(verdict)).first->second.runs;
}

u64 CodeFrames::copy_of(Gpa page) const {
  const auto known = known_.find(page.frame());
  return known == known_.end() || known->second.copy == kNone ? ~u64{0}
                                                              : copies_offset_ + u64{known->second.copy} * kPageSize;
}

bool CodeFrames::admits_border(Gpa page, Gpa next) const {
  constexpr unsigned kSide = 3;
  u8 bytes[2 * kSide];
  std::memcpy(bytes, cpu_.ram->host(page.wrapping_add(kPageSize - kSide)), kSide);
  std::memcpy(bytes + kSide, cpu_.ram->host(next), kSide);
  return border_runs(bytes);
}

const std::vector<Gpa>& CodeFrames::overwritten() {
  changed_.clear();
  const u64 now = cpu_.code->epoch();
  if (now == epoch_) return changed_;
  free_copies_.insert(free_copies_.end(), returned_.begin(), returned_.end());
  returned_.clear();
  std::vector<u64> frames;
  if (cpu_.code->overwritten(epoch_, now, frames)) {
    for (const u64 frame : frames) {
      const auto known = known_.find(frame);
      if (known == known_.end()) continue;
      release(known->second);
      note_rewrite(frame, known->second);
      known_.erase(known);
      changed_.push_back(Gpa{frame * kPageSize});
    }
  } else {
    std::erase_if(known_, [&](const auto& entry) {
      if (entry.second.generation == cpu_.code->generation(entry.first).load(std::memory_order_acquire)) return false;
      release(entry.second);
      changed_.push_back(Gpa{entry.first * kPageSize});
      note_rewrite(entry.first, entry.second);
      return true;
    });
  }
  epoch_ = now;
  return changed_;
}

}  // namespace trapline::engine::patch
