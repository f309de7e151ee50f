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
constexpr u64 kFewFetches = 8;  // in a window: its code is new no more
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
  s.translated = s.decoded = s.inside = s.beside = s.fetches = 0;
  promotions++;
  TRACE(cages, "address space {:#x} runs directly", root);
}

void Tiers::ran(u64 root, u64 inside, u64 beside, u64 fetches) {
  Space& s = at(root);
  s.inside += inside, s.beside += beside, s.fetches += fetches;
  const u64 slowdown = s.is_new ? kSlowdownNew : kSlowdownHot;
  // A clear case needs less time.
  if (s.inside + s.beside >= kWindow / 6 && s.beside > 2 * slowdown * s.inside) return demote(root);
  if (s.inside + s.beside < kWindow) return;
  if (s.fetches < kFewFetches) s.is_new = false;
  if (s.beside > s.inside * slowdown) return demote(root);
  if (s.beside * 4 < s.inside * slowdown && s.setbacks > 0) s.setbacks--;
  s.inside = s.beside = s.fetches = 0;
}

void Tiers::demote(u64 root) {
  Space& s = at(root);
  s.direct = false;
  s.translated = s.decoded = 0;
  s.needed = costs_.rest << std::min(s.setbacks++, kMostSetbacks);
  demotions++;
  TRACE(cages, "address space {:#x} is translated again: {} ticks inside, {} beside", root, s.inside, s.beside);
}

void Tiers::forget(u64 root) {
  if (current_.root == root) current_ = {};
  spaces_.erase(root);
}

}  // namespace trapline::engine::patch
