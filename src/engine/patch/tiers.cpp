#include "engine/patch/tiers.h"

#include <algorithm>
#include <utility>

#include "base/trace.h"

namespace trapline::engine::patch {

namespace {

constexpr std::size_t kMostSpaces = 4096;
constexpr u64 kMostGap = 10'000'000;  // between two signs of life of translated user code, beyond it something else ran
constexpr u64 kWindow = 60'000'000;   // of cage time and its costs, between two looks
// Translated code takes so much longer, beyond its native time: while it is new, and when it is hot.
constexpr u64 kManyCalls = 100, kShortTurn = 30'000;  // ticks between two of them
constexpr u64 kFewFetches = 8;                        // in a window: its code is new no more
constexpr u64 kSlowdownNew = 5, kSlowdownHot = 1;
constexpr unsigned kMostSetbacks = 8;  // doublings of the rest

}  // namespace

bool Tiers::known(u64 root) const {
  const auto s = spaces_.find(root);
  return s != spaces_.end() && s->second.direct;
}

Tiers::Space& Tiers::at(u64 root) {
  if (current_.root == root) return *current_.space;
  if (spaces_.size() >= kMostSpaces) spaces_.clear();
  Space& s = spaces_[root];
  current_ = {root, &s};
  return s;
}

void Tiers::translated(u64 root, u64 now, u64 decoded) {
  const u64 gap = now - last_;
  const bool same = last_root_ == root && gap < kMostGap;
  last_ = now;
  last_root_ = root;
  const u64 fresh = decoded - std::exchange(last_decoded_, decoded);
  if (!same) return;
  Space& s = at(root);
  if (s.direct) return;
  s.translated += gap;
  s.decoded += fresh;
  if (s.translated < (s.needed ? s.needed : costs_.promote_after)) return;
  s.is_new = s.decoded * costs_.decoding > s.translated / 4;
  if (!s.is_new && s.translated < costs_.promote_hot) return;
  s.direct = true;
  s.translated = s.decoded = 0;
  s.stay = {};
  promotions++;
  TRACE(cages, "address space {:#x} runs directly", root);
}

void Tiers::ran(u64 root, const Stay& stay) {
  Space& s = at(root);
  Stay& sum = s.stay;
  sum.inside += stay.inside, sum.beside += stay.beside;
  sum.calls += stay.calls, sum.faults += stay.faults, sum.fetches += stay.fetches;
  // It lives in the kernel: however new its code is, there is little of it.
  if (sum.calls >= kManyCalls && sum.calls > 3 * sum.faults && sum.inside < sum.calls * kShortTurn) return demote(root);
  const u64 slowdown = s.is_new ? kSlowdownNew : kSlowdownHot, all = sum.inside + sum.beside;
  // A clear case needs less time.
  if (all >= kWindow / 6 && sum.beside > 2 * slowdown * sum.inside) return demote(root);
  if (all < kWindow) return;
  if (sum.fetches < kFewFetches) s.is_new = false;
  if (sum.beside > sum.inside * slowdown) return demote(root);
  if (sum.beside * 4 < sum.inside * slowdown && s.setbacks > 0) s.setbacks--;
  sum = {};
}

void Tiers::demote(u64 root) {
  Space& s = at(root);
  s.direct = false;
  s.translated = s.decoded = 0;
  s.needed = costs_.rest << std::min(s.setbacks++, kMostSetbacks);
  demotions++;
  TRACE(cages, "address space {:#x} is translated again: {} ticks inside, {} beside", root, s.stay.inside,
        s.stay.beside);
}

void Tiers::forget(u64 root) {
  if (current_.root == root) current_ = {};
  spaces_.erase(root);
}

}  // namespace trapline::engine::patch
