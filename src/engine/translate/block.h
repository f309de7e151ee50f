// What the translator keeps of a block beside its host code.
#pragma once

#include <memory>
#include <vector>

#include "cpu/semantics.h"
#include "engine/translate/views.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::translate {

struct Block;

// How a memory access of translated code finds its address again when it takes the slow path.
enum class Operand : u8 {
  explicit_,  // insn.mem
  push,       // RSP - size
  pop,        // RSP
};

// A place from which host code calls the translator.
struct Site {
  enum class Kind : u8 {
    miss,  // a memory access found no slot: fill it and go on at `resume`, or leave the instruction to the interpreter
    x87,   // the x87 registers are parked: bring them back
    semantic,  // a sensitive or complex instruction
    vector,    // one for the vector unit
    step,      // for the interpreter
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
  u64 patch = 0;  // address of the jump's displacement
  Block* block = nullptr;
  cpu::Semantic semantic = nullptr;
  VectorOp vector;
  isa::Insn insn;
};

// Everything that shapes a block's code besides its bytes and its address.
struct Key {
  u64 linear = 0, gpa = 0;
  u32 mode = 0;  // the interpreter's key, view and units: translator.cpp
  bool operator==(const Key&) const = default;
};

struct Block {
  Key key;
  View view = View::kernel;
  bool stable = false;  // lies on a global page of the upper half
  bool stale = false;
  Block* next = nullptr;  // BlockTable's
  u16 count = 0;          // instructions
  u16 bytes = 0;
  u64 entry = 0, end = 0;  // host code
  u64 stale_stub = 0;
  const std::atomic<u32>* generation = nullptr;
  u32 generation_seen = 0;
  std::vector<u8> code;  // the guest's bytes
  struct At {
    u32 host;   // from `entry`
    u16 guest;  // from key.linear
  };
  std::vector<At> insns;
  // x87 instructions run inline: (index, FIP) of those that set the pointers.
  struct Pointer {
    u16 index;
    u64 rip;
  };
  std::vector<Pointer> x87;
  bool uses_x87 = false;
};

// Blocks by key. A fixed number of buckets with chains: found without a division, on the way of every dispatch.
class BlockTable {
 public:
  BlockTable() : buckets_(kBuckets) {}
  Block* find(const Key& key) const {
    for (Block* b = buckets_[index(key)]; b; b = b->next)
      if (b->key == key) return b;
    return nullptr;
  }
  void insert(Block& block) {
    Block*& head = buckets_[index(block.key)];
    block.next = head;
    head = &block;
  }
  void erase(Block& block) {
    for (Block** at = &buckets_[index(block.key)]; *at; at = &(*at)->next) {
      if (*at != &block) continue;
      *at = block.next;
      return;
    }
  }
  void clear() { buckets_.assign(kBuckets, nullptr); }

 private:
  static constexpr u64 kBuckets = 1 << 16;
  static u64 index(const Key& k) {
    return (k.linear ^ k.linear >> 16 ^ k.gpa >> 12 ^ k.mode * 0x9e37) & (kBuckets - 1);
  }
  std::vector<Block*> buckets_;
};

}  // namespace trapline::engine::translate
