// Where host code of a block calls C++.
#pragma once

#include "cpu/semantics.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::hostcode {

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
struct ExitStub {
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
    poll,      // attention has bits; `rip` is where to go on
    stale,     // the code at this block's head was overwritten
    trap,      // a host signal in translated code
  };
  Kind kind = Kind::step;
  bool ends = false;      // nothing of the block comes after it
  bool write = false;     // miss
  bool by_thunk = false;  // semantic: a string instruction that a thunk does as far as it can
  bool in_r10 = false;    // miss: the place without its displacement, for the instruction that stores
  bool asked = false;     // indirect: because of attention, whatever the jump cache has
  bool turned = false;    // link: in the mode of Block::turned
  Operand operand = Operand::explicit_;
  u8 size = 0;
  i8 undo_rsp = 0;  // indirect: what the branch has added to RSP
  u16 before = 0;   // instructions of the block that have retired here
  u64 rip = 0;
  u64 resume = 0;
  // miss: where to go on with what to add to the address in RCX, R10 being as it was; of a store with `copy_bytes`, to
  // its copy behind the block
  u64 hit = 0;
  u64 patch = 0;  // address of the jump's displacement; of a store with `copy_bytes`, of that instruction
  Block* block = nullptr;
  cpu::Semantic semantic = nullptr;
  isa::MemOperand mem;  // miss
  u8 length = 0;        // of the instruction
  u8 copy_bytes = 0;    // miss: of the host instruction that stores, if that is all there is at `hit`
  const Called* called = nullptr;
  u64 number = 0;
};

}  // namespace trapline::engine::hostcode
