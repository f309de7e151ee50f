// Which guest programs run directly, by what it costs. `root` names a program's address space: user time that was
// translated promotes it; hand-overs that take more than translation would demote it, for longer each time. How soon a
// program is promoted is learnt from those before it. docs/cages.md.
#pragma once

#include <unordered_map>

#include "base/types.h"

namespace trapline::engine::patch {

// All times in host TSC ticks. Thread: its vCPU's.
class Tiers {
 public:
  struct Costs {
    u64 promote_after;  // translated user time before a cage is worth its first faults, of code that is mostly new,
    u64 promote_hot;    // and of code that has long been translated: it gains much less
    u64 decoding;       // what decoding and translating takes for an instruction
    u64 invest_hot;     // what it takes to go back to code that has been translated,
    u64 invest_page;    // more for each fault that has fetched code that has not,
    u64 invest_new;     // but no more than this
    u64 rest;           // translated user time before a demoted address space is tried again
    u64 stop;           // what a stop of a cage takes where all these are right: the first two follow it
  };
  // always: all are direct, and stay so.
  Tiers(const Costs& costs, bool always) : costs_{costs}, always_{always} {}

  bool direct(u64 root) const {
    if (always_) return true;
    return current_.root == root ? current_.space->direct : known(root);
  }
  // User code of `root` has run translated for so many ticks, in which `decoded` instructions were decoded or translated
  // and the kernel was entered so often.
  void translated(u64 root, u64 ticks, u64 decoded, u64 entries);
  struct Stay {
    u64 inside = 0, beside = 0;              // hand-overs, faults, mappings
    u64 calls = 0, faults = 0, fetches = 0;  // system calls and traps; page faults, and those of code
  };
  // It has been in a cage.
  void ran(u64 root, const Stay& stay);
  // Never again, whatever it costs (instructions that must not run directly are hot in it, say): for a rest.
  void demote(u64 root);
  // Another program begins there.
  void forget(u64 root);

  u64 promotions = 0, demotions = 0;

 private:
  struct Space {
    bool direct = false;
    bool is_new = false;  // much of its code is
    u64 translated = 0;   // since the last decision
    u64 decoded = 0;      // likewise
    u64 entries = 0;      // likewise: of the kernel
    u64 needed = 0;       // of that, for the next promotion; 0: costs_.promote_after
    Stay stay;            // since the last look
    u64 fetches = 0;      // as long as it is direct
    u64 loss = 0;         // by which cages have been dearer than code that has long been translated
    bool paid = false;    // it has been worth it
    unsigned setbacks = 0;
  };
  u64 scaled(u64 ticks, u64 stop) const;
  u64 dearer(u64 ticks, u64 most) const;
  void learn(const Stay& stay);
  bool known(u64 root) const;
  Space& at(u64 root);
  struct {
    u64 root = ~u64{0};
    Space* space = nullptr;
  } current_;
  Costs costs_;
  bool always_;
  u64 stop_ = costs_.stop;         // on average,
  u64 learnt_ = 0;                 // of so many
  u64 patience_ = kLeastPatience;  // sixteenths: grows as programs end before their cages have paid
  static constexpr u64 kLeastPatience = 16, kMostPatience = 256;
  std::unordered_map<u64, Space> spaces_;
};

}  // namespace trapline::engine::patch
