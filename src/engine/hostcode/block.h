// What the translator keeps of a block beside its host code.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/addr.h"
#include "engine/emit/emitter.h"
#include "engine/hostcode/exit_stub.h"
#include "engine/hostcode/view.h"

namespace trapline::engine::hostcode {

using namespace emit;

inline constexpr Gpa kOnePage{~u64{0}};  // in place of a second page

// Everything that shapes a block's code besides its bytes and its address.
struct Key {
  Gva linear;
  Gpa gpa;
  u32 mode = 0;         // engine::mode_key, view and units
  Gpa gpa2 = kOnePage;  // its second page, if the first instruction crosses into one
  bool operator==(const Key&) const = default;
};

struct Placement;

struct Block {
  Key key;
  View view = View::kernel;
  bool stable = false;  // lies on a global page of the upper half
  bool stale = false;
  u32 turned = 0;  // the mode behind its STAC or CLAC
  u16 count = 0;   // instructions
  u16 bytes = 0;
  u64 entry = 0, end = 0;      // host code
  u64 cold = 0, cold_end = 0;  // its code that is seldom run, elsewhere
  u64 stale_stub = 0;
  u64 first_site = 0, sites = 0;  // numbers
  bool movable = false;           // by these:
  std::span<const Fixup> fixups, cold_fixups;
  const Block* made_as = nullptr;  // whose fixups these are: a copy's
  u64 moved_by = 0;                // since they were made: add it to the addresses that they name
  Placement* placement = nullptr;
  const std::atomic<u32>* generation = nullptr;
  u32 generation_seen = 0;
  const std::atomic<u32>* generation2 = nullptr;  // of the second page
  u32 generation2_seen = 0;
  bool crosses() const { return key.gpa2 != kOnePage; }
  bool has(const ExitStub& stub) const { return stub.block == this && stub.number - first_site < sites; }
  // The frame in which it relies on a linear page to lie; kOnePage: it is not there.
  Gpa frame_of(Gva page) const {
    if (page == key.linear.page()) return key.gpa.page();
    return crosses() && page == key.linear.page().wrapping_add(kPageSize) ? key.gpa2 : kOnePage;
  }
  // In the translator's memory, until it is flushed:
  std::span<const u8> code;  // the guest's bytes
  struct At {
    u32 host;   // from `entry`
    u16 guest;  // from key.linear
  };
  std::span<const At> insns;
  // x87 instructions run inline: those that set the pointers.
  struct Pointer {
    static constexpr u8 kNoMemory = 0xff;
    u64 rip;
    u16 index;
    u16 fop;
    bool all;    // FOP, FDP and FDS too: the host sets them without an exception
    u8 segment;  // of its memory operand; its code stores FDP itself
  };
  std::span<Pointer> x87;
  bool uses_x87 = false;
};

// The lists of a block that lowering fills.
struct Draft {
  std::vector<Block::At> insns;
  std::vector<Block::Pointer> x87;
  std::vector<Fixup> fixups, cold_fixups;
  void clear() { insns.clear(), x87.clear(), fixups.clear(), cold_fixups.clear(); }
};

}  // namespace trapline::engine::hostcode
