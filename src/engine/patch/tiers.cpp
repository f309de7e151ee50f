#include "engine/patch/tiers.h"

#include <algorithm>
#include <utility>

#include "base/trace.h"

namespace trapline::engine::patch {

namespace {

constexpr std::size_t kMostSpaces = 4096;
constexpr u64 kWindow = 10'000'000;                   // of cage time and its costs, between two looks
constexpr u64 kManyStops = 100, kShortTurn = 30'000;  // ticks between two of them
constexpr u64 kSlowdown = 2;                // hot code that is translated takes so much longer, beyond its native time
constexpr u64 kMuch = 25, kNearlyAll = 60;  // per cent of new code
constexpr unsigned kMostSetbacks = 8;       // doublings of the rest

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

void Tiers::translated(u64 root, u64 ticks, u64 decoded, u64 entries) {
  Space& s = at(root);
  if (s.direct) return;
  s.translated += ticks;
  s.decoded += decoded;
  s.entries += entries;
  const u64 least = s.needed ? s.needed : scaled(costs_.promote_after, std::min(stop_, costs_.stop));
  if (s.translated < least) return;
  // Of a compiler's first milliseconds nearly all is decoding, and so will the next be: no cage is dearer.
  const u64 fresh = s.decoded * costs_.decoding * 100 / s.translated;  // per cent
  if (fresh < kNearlyAll) {
    if (!s.needed && s.translated < dearer(costs_.promote_after, 32)) return;
    if (fresh < kMuch && s.translated < dearer(costs_.promote_hot, 8)) return;
  }
  s.is_new = fresh >= kMuch;
  // Who enters the kernel all the time would pay for it what a cage saves. Whether that changes is seen in the next
  // stretch.
  const u64 saved = s.is_new ? s.translated / 10 * 9 : s.translated / (kSlowdown + 1) * kSlowdown;
  if (s.entries * stop_ > saved) {
    s.translated = s.decoded = s.entries = 0;
    return;
  }
  TRACE(cages, "address space {:#x} runs directly: {} ticks translated, {} % of them new code", root, s.translated,
        fresh);
  s.direct = true;
  s.paid = false;
  s.translated = s.decoded = s.entries = 0;
  s.stay = {};
  patience_ = std::min(patience_ + patience_ / 4, kMostPatience);
  promotions++;
}

// What is right where a stop takes costs_.stop, where it takes `stop`.
u64 Tiers::scaled(u64 ticks, u64 stop) const {
  constexpr u64 kCheapest = 4;  // a part of it: a cage has to be had, and its first pages looked at, too
  return std::max(ticks / kCheapest, ticks / 1024 * (stop * 1024 / costs_.stop));
}

// A cage costs the faults by which it is filled; who translates as long as that takes loses at most as much again. Most
// programs of a boot or of a build end sooner.
u64 Tiers::dearer(u64 ticks, u64 most) const {
  return std::min(scaled(ticks, stop_ * patience_ / kLeastPatience), ticks * most);
}

// The first stops say more than the guess that stands in for them.
void Tiers::learn(const Stay& stay) {
  const u64 stops = stay.calls + stay.faults;
  if (stops == 0) return;
  constexpr u64 kGuess = 64;  // stops that it is worth
  learnt_ += stops;
  const u64 weight = std::min<u64>(std::max(stops, stops * 1024 / (kGuess + learnt_)), 64);  // of 1024
  stop_ = (stop_ * (1024 - weight) + stay.beside / stops * weight) / 1024;
}

// Like renting or buying: it is translated when cages have cost more than that would have, what it takes to begin
// included.
void Tiers::ran(u64 root, const Stay& stay) {
  Space& s = at(root);
  Stay& sum = s.stay;
  sum.inside += stay.inside, sum.beside += stay.beside;
  sum.calls += stay.calls, sum.faults += stay.faults;
  s.fetches += stay.fetches;
  learn(stay);
  // Hot code that lives in the kernel, where stops are dear for what lies between. (How much of its time new code would
  // take, if translated, nobody knows yet.)
  const u64 stops = sum.calls + sum.faults;
  const bool brief = sum.inside < stops * kShortTurn && sum.inside < 2 * sum.beside;
  if (!s.is_new && stops >= kManyStops && brief) return demote(root);
  if (sum.inside + sum.beside < kWindow) return;
  const u64 gain = sum.inside * kSlowdown;
  if (gain > sum.beside && !std::exchange(s.paid, true)) patience_ = std::max(patience_ / 2, kLeastPatience);
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
  s.translated = s.decoded = s.entries = 0;
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
