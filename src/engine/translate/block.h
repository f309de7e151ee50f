// What the translator keeps of a block beside its host code.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cpu/semantics.h"
#include "engine/translate/emitter.h"
#include "engine/translate/views.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::translate {

struct Block;

// How a memory access of translated code finds its address again when it takes the slow path.
enum class Operand : u8 {
  explicit_,  // insn.mem
  push,       // RSP - size
  pop,        // RSP
  linear,     // R10 has the linear address
};

// An instruction that C++ executes.
struct Called {
  isa::Insn insn;
  VectorOp vector;
};

// A place from which host code calls the translator. There are several to a block: kept small.
struct Site {
  enum class Kind : u8 {
    miss,  // a memory access found no slot: fill it and go on at `resume`, or leave the instruction to the interpreter
    x87,   // the x87 registers are parked: bring them back
    semantic,  // a sensitive or complex instruction
    vector,    // one for the vector unit
    step,      // for the interpreter
    pause,     // many PAUSEs have run: another vCPU may wait for this host CPU
    link,      // the end of a block: `rip` is the target, the jump at `patch` may be linked
    indirect,  // r10 is the target, which the jump cache does not know
    limit,     // at a block's head: the budget is spent
    poll,      // somebody wants attention; `rip` is where to go on
    stale,     // the code at this block's head was overwritten
    trap,      // a host signal in translated code
  };
  Kind kind = Kind::step;
  bool ends = false;   // nothing of the block comes after it
  bool write = false;  // miss
  Operand operand = Operand::explicit_;
  u8 size = 0;
  i8 undo_rsp = 0;  // indirect: what the branch has added to RSP
  u16 before = 0;   // instructions of the block that have retired here
  u64 rip = 0;
  u64 resume = 0;
  u64 hit = 0;    // miss: where to go on with what to add to the address in RCX, R10 being as it was
  u64 patch = 0;  // address of the jump's displacement
  u64 thunk = 0;  // that tries first; 0: C++ does it
  Block* block = nullptr;
  cpu::Semantic semantic = nullptr;
  isa::MemOperand mem;  // miss
  u8 length = 0;        // of the instruction
  const Called* called = nullptr;
  u64 number = 0;
};

inline constexpr u64 kOnePage = ~u64{0};

// Everything that shapes a block's code besides its bytes and its address.
struct Key {
  u64 linear = 0, gpa = 0;
  u32 mode = 0;         // the interpreter's key, view and units: translator.cpp
  u64 gpa2 = kOnePage;  // page address of its second page, if the first instruction crosses into one
  bool operator==(const Key&) const = default;
};

struct Block {
  Key key;
  View view = View::kernel;
  bool stable = false;  // lies on a global page of the upper half
  bool stale = false;
  u16 count = 0;  // instructions
  u16 bytes = 0;
  u64 entry = 0, end = 0;      // host code
  u64 cold = 0, cold_end = 0;  // its code that is seldom run, elsewhere
  u64 stale_stub = 0;
  u64 first_site = 0, sites = 0;  // numbers
  bool movable = false;           // by these:
  std::span<const Fixup> fixups, cold_fixups;
  const std::atomic<u32>* generation = nullptr;
  u32 generation_seen = 0;
  const std::atomic<u32>* generation2 = nullptr;  // of the second page
  u32 generation2_seen = 0;
  bool crosses() const { return key.gpa2 != kOnePage; }
  // The frame, by its address, in which it relies on a linear page to lie; kOnePage: it is not there.
  u64 frame_of(u64 page) const {
    if (page == (key.linear & kPageMask)) return key.gpa & kPageMask;
    return crosses() && page == (key.linear & kPageMask) + kPageSize ? key.gpa2 : kOnePage;
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
  std::span<const Pointer> x87;
  bool uses_x87 = false;
};

// What is known of a block when it is lowered.
struct Draft {
  std::vector<Block::At> insns;
  std::vector<Block::Pointer> x87;
  std::vector<Fixup> fixups, cold_fixups;
  void clear() { insns.clear(), x87.clear(), fixups.clear(), cold_fixups.clear(); }
};

// Blocks by key: open addressing, with enough beside the pointer that a look-up rarely reads a block in vain. It is on
// the way of every dispatch.
class BlockTable {
 public:
  BlockTable() : slots_(kLeast) {}
  Block* find(const Key& key) const {
    for (u64 i = first(key);; i++) {
      const Slot& s = slots_[i & mask()];
      if (s.linear == key.linear && s.block && s.block->key == key) return s.block;
      if (!s.block && !s.erased) return nullptr;
    }
  }
  void insert(Block& block) {
    if (++used_ * 2 > slots_.size()) grow();
    place(block);
  }
  void erase(const Block& block) {
    for (u64 i = first(block.key);; i++) {
      Slot& s = slots_[i & mask()];
      if (s.block == &block) {
        s = {0, nullptr, true};
        return;
      }
      if (!s.block && !s.erased) return;
    }
  }
  void clear() {
    slots_.assign(kLeast, Slot{});
    used_ = 0;
  }

 private:
  static constexpr u64 kLeast = 1 << 14;
  struct Slot {
    u64 linear = 0;
    Block* block = nullptr;
    bool erased = false;
  };
  u64 mask() const { return slots_.size() - 1; }
  static u64 first(const Key& k) { return (k.linear ^ k.gpa >> 12 ^ k.mode) * 0x9e3779b97f4a7c15 >> 24; }
  void place(Block& block) {
    u64 i = first(block.key);
    while (slots_[i & mask()].block) i++;
    slots_[i & mask()] = {block.key.linear, &block, false};
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    used_ = 1;
    for (const Slot& s : old)
      if (s.block) used_++, place(*s.block);
  }
  std::vector<Slot> slots_;
  u64 used_ = 0;  // and erased
};

}  // namespace trapline::engine::translate
