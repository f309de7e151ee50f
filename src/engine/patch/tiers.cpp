#include "engine/patch/tiers.h"

#include <algorithm>
#include <utility>

#include "base/trace.h"

namespace trapline::engine::patch {

namespace {

constexpr std::size_t kMostSpaces = 4096;
constexpr u64 kWindow = 10'000'000;                   // of cage time and its costs, between two looks
constexpr u64 kManyStops = 100, kShortTurn = 30'000;  // ticks between two of them
constexpr u64 kSlowdown = 2;           // hot code that is translated takes so much longer, beyond its native time
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

void Tiers::translated(u64 root, u64 ticks, u64 decoded) {
  Space& s = at(root);
  if (s.direct) return;
  s.translated += ticks;
  s.decoded += decoded;
  if (s.translated < (s.needed ? s.needed : costs_.promote_after)) return;
  s.is_new = s.decoded * costs_.decoding > s.translated / 4;
  if (!s.is_new && s.translated < costs_.promote_hot) return;
  s.direct = true;
  s.translated = s.decoded = 0;
  s.stay = {};
  promotions++;
  TRACE(cages, "address space {:#x} runs directly", root);
}

// Like renting or buying: it is translated when cages have cost more than that would have, what it takes to begin
// included.
void Tiers::ran(u64 root, const Stay& stay) {
  Space& s = at(root);
  Stay& sum = s.stay;
  sum.inside += stay.inside, sum.beside += stay.beside;
  sum.calls += stay.calls, sum.faults += stay.faults;
  s.fetches += stay.fetches;
  // Hot code that lives in the kernel. (How much of its time new code would take, if translated, nobody knows yet.)
  const u64 stops = sum.calls + sum.faults;
  if (!s.is_new && stops >= kManyStops && sum.inside < stops * kShortTurn) return demote(root);
  if (sum.inside + sum.beside < kWindow) return;
  const u64 gain = sum.inside * kSlowdown;
  s.loss = s.loss + sum.beside < gain ? 0 : s.loss + sum.beside - gain;
  const u64 invest =
      s.is_new ? std::min(costs_.invest_hot + s.fetches * costs_.invest_page, costs_.invest_new) : costs_.invest_hot;
  if (s.loss > invest) return demote(root);
  if (s.loss == 0 && s.setbacks > 0) s.setbacks--;
  sum = {};
}

void Tiers::demote(u64 root) {
  Space& s = at(root);
  s.direct = s.is_new = false;
  s.loss = s.fetches = 0;
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
