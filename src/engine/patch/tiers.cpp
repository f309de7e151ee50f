#include "engine/patch/tiers.h"

#include <algorithm>

#include "base/trace.h"

namespace trapline::engine::patch {

namespace {

constexpr std::size_t kMostSpaces = 4096;
constexpr u64 kMostGap = 10'000'000;  // between two signs of life of translated user code, beyond it something else ran
constexpr u64 kWindow = 60'000'000;   // of cage time and its costs, between two looks
constexpr u64 kSlowdown = 3;          // translated code takes so much longer, beyond its native time
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

void Tiers::translated(u64 root, u64 now) {
  const u64 gap = now - last_;
  const bool same = last_root_ == root && gap < kMostGap;
  last_ = now;
  last_root_ = root;
  if (!same) return;
  Space& s = at(root);
  if (s.direct) return;
  s.translated += gap;
  if (s.translated < (s.needed ? s.needed : costs_.promote_after)) return;
  s.direct = true;
  s.translated = s.inside = s.beside = 0;
  promotions++;
  TRACE(cages, "address space {:#x} runs directly", root);
}

void Tiers::ran(u64 root, u64 inside, u64 beside) {
  Space& s = at(root);
  s.inside += inside, s.beside += beside;
  if (s.inside + s.beside < kWindow) return;
  if (s.beside > s.inside * kSlowdown) return demote(root);
  if (s.beside * 4 < s.inside * kSlowdown && s.setbacks > 0) s.setbacks--;
  s.inside = s.beside = 0;
}

void Tiers::demote(u64 root) {
  Space& s = at(root);
  s.direct = false;
  s.translated = 0;
  s.needed = costs_.rest << std::min(s.setbacks++, kMostSetbacks);
  demotions++;
  TRACE(cages, "address space {:#x} is translated again: {} ticks inside, {} beside", root, s.inside, s.beside);
}

void Tiers::forget(u64 root) {
  if (current_.root == root) current_ = {};
  spaces_.erase(root);
}

}  // namespace trapline::engine::patch
