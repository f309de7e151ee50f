// The threaded code of the interpreter: a block is a header and a row of 32-byte ops, each naming its handler.
//
//   DecodedBlock | Op Op ... Op(end) | code bytes | Extra (full isa::Insn, semantic or thunk) of the ops that need one
//
// While a block runs, cpu.rip stays at the block's first byte (so a RIP-relative operand is base + displacement like
// any other) and cpu.retired already counts the whole block. Every way out of the middle goes through Exact, fault_at
// or leave_after, which set both right.
#pragma once

#include <cstddef>

#include "cpu/mmu.h"
#include "cpu/semantics.h"
#include "cpu/vcpu.h"
#include "engine/common/mode_key.h"
#include "engine/vector/vector_unit.h"

// Handlers call the next one as a tail call, which GCC makes a jump when it optimises; otherwise the run loop goes
// round.
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(TRAPLINE_LOOPED)
#define TRAPLINE_DISPATCH(cpu, op) return (op)->fn(cpu, op)
#else
#define TRAPLINE_DISPATCH(cpu, op) return static_cast<void>(cpu), (op)
#endif
#define TRAPLINE_NEXT(cpu, op) TRAPLINE_DISPATCH(cpu, (op) + 1)

namespace trapline::engine::interpret {

using cpu::Outcome;
using cpu::Seg;
using cpu::Vcpu;
using isa::Insn;

struct Op;
// Executes `op` and goes on; null: the run loop must look (Interpreter::leave says why).
using Handler = const Op* (*)(Vcpu&, const Op*);

// Registers are byte offsets into Vcpu: AH is 1, RIP (of the block) is 136, kZero reads 0, kScratch is Vcpu::scratch.
struct Op {
  Handler fn = nullptr;
  u8 dst = 0, src = 0, base = 0, index = 0;
  i32 disp = 0;
  u64 imm = 0;  // immediate; branches: distance of the target from the block's start; else a pointer to the op's Extra
  u16 at = 0;   // distance of this instruction from the block's start
  u8 length = 0;
  u8 left = 0;   // instructions of the block from this one on, itself included
  u8 scale = 0;  // log2
  u8 seg = 0;
  u8 address_shift = 0;  // 64 - address bits
  u8 slot = 0;           // index of this op in its block
};
static_assert(sizeof(Op) == 32);

inline constexpr u8 kZero = 16 * 8, kRip = 17 * 8, kScratch = 18 * 8;
static_assert(offsetof(cpu::ArchState, gpr) == 0 && sizeof(cpu::ArchState::gpr) == kRip &&
              offsetof(cpu::ArchState, rip) == kRip && offsetof(cpu::ArchState, scratch) == kScratch);

// What the run loop has to do when a chain of blocks ends.
enum class Leave : u8 { boundary, fault, halt, stop, breakpoint };

struct DecodedBlock {
  const std::atomic<u32>* generation = nullptr;  // CodeMap's, of the frame of the first byte
  u32 generation_seen = 0;
  u32 key = 0;
  Gpa gpa;                       // of the first byte
  DecodedBlock* next = nullptr;  // same hash bucket
  DecodedBlock* link[2] = {};    // where direct branches went: taken, not taken
  u16 bytes = 0;
  u8 count = 0;  // instructions
  u8 ops = 0;
  u32 heat = ~0u;                                 // entries until it goes back to the run loop: then it is hot
  bool crosses = false;                           // one instruction that goes on in another page
  u16 mnemonic = 0;                               // of the last instruction
  const std::atomic<u32>* generation2 = nullptr;  // of the second page
  u32 generation2_seen = 0;
  Gpa gpa2;                  // second page
  const u8* code = nullptr;  // the bytes it was made from

  Op* first() { return reinterpret_cast<Op*>(this + 1); }
  const Op* first() const { return reinterpret_cast<const Op*>(this + 1); }
  bool fresh() const {
    return generation->load(std::memory_order_relaxed) == generation_seen &&
           (!crosses || generation2->load(std::memory_order_relaxed) == generation2_seen);
  }
};
static_assert(sizeof(DecodedBlock) % alignof(Op) == 0);

inline DecodedBlock* block_of(const Op* op) {
  return reinterpret_cast<DecodedBlock*>(const_cast<Op*>(op - op->slot)) - 1;
}

// What ops outside the specialised handlers point to.
struct Extra {
  Insn insn;
  cpu::Semantic semantic = nullptr;
  VectorOp vector;  // of ops that run_vector executes
};
inline const Extra& extra_of(const Op* op) { return *reinterpret_cast<const Extra*>(op->imm); }

// The part of the interpreter that handlers see; Vcpu::engine_state.
struct JumpEntry {
  Gva linear{~u64{0}};
  DecodedBlock* block = nullptr;
};
struct Run {
  u64 limit = 0;     // blocks that would take cpu.retired past it go back to the run loop
  u32 key = 0;       // of the mode now
  u64 deadline = 0;  // cpu.timer_deadline when `limit` was made
  Leave leave = Leave::boundary;
  DecodedBlock** pending_link = nullptr;  // of the branch that just left unlinked, to pending_rip
  u64 pending_rip = 0;
  Gpa pending_page;  // of its block
  u32 pending_key = 0;
  bool pending_cross = false;  // it checks the translation of its targets
  static constexpr u64 kJumps = 16384;
  JumpEntry jump[kJumps];
  Run() { forget_jumps(); }
  void forget_jumps();
};
inline Run& run_of(Vcpu& cpu) { return *static_cast<Run*>(cpu.engine_state); }
inline u64 jump_slot(Gva linear) { return (linear.raw ^ linear.raw >> 12) & (Run::kJumps - 1); }
// No address may find an empty entry: ~0 is one too, so the slot where it belongs holds an address that belongs
// elsewhere.
inline void Run::forget_jumps() {
  for (JumpEntry& e : jump) e = JumpEntry{};
  static_assert(((~u64{0} ^ ~u64{0} >> 12) & (kJumps - 1)) == 0);
  jump[0].linear = Gva{1};
}

// -- Registers
inline u8* reg_at(Vcpu& cpu, u8 offset) { return reinterpret_cast<u8*>(&cpu) + offset; }
template <class T>
inline T get(Vcpu& cpu, u8 offset) {
  T v;
  std::memcpy(&v, reg_at(cpu, offset), sizeof v);
  return v;
}
// Writes of 32 bits zero the upper half; of 16 bits merge, as one whole store (a partial one would stall the next whole
// load).
template <class T>
inline void set(Vcpu& cpu, u8 offset, T v) {
  u8* p = reg_at(cpu, offset);
  if constexpr (sizeof(T) == 4) {
    const u64 wide = v;
    std::memcpy(p, &wide, 8);
  } else if constexpr (sizeof(T) == 2) {
    u64 wide;
    std::memcpy(&wide, p, 8);
    wide = (wide & ~u64{0xffff}) | v;
    std::memcpy(p, &wide, 8);
  } else {
    std::memcpy(p, &v, sizeof v);
  }
}

// -- Ways out of the middle (exits.cpp)

// While it lives, cpu.rip and
// cpu.retired are those before `op`.
class Exact {
 public:
  Exact(Vcpu& cpu, const Op* op) : cpu_{cpu}, op_{op} {
    cpu.rip = (cpu.rip + op->at) & cpu.linear_mask;
    cpu.retired -= op->left;
  }
  ~Exact() {
    cpu_.rip = (cpu_.rip - op_->at) & cpu_.linear_mask;
    cpu_.retired += op_->left;
  }
  Exact(const Exact&) = delete;

 private:
  Vcpu& cpu_;
  const Op* op_;
};
const Op* fault_at(Vcpu& cpu, const Op* op);  // cpu.fault is set: `op` has not happened
const Op* leave_after(Vcpu& cpu,
                      const Op* op);  // `op` is done; the rest of the block must not run before the run loop looked
const Op* leave_jumped(Vcpu& cpu);    // cpu.rip is set to a place that only the run loop can find
const Op* raise_gp_at(Vcpu& cpu, const Op* op);
const Op* unlinked(Vcpu& cpu, const Op* op, unsigned which, bool cross);
// Did the slow path change what the rest of the block relies on: its own code, attention, the timer?
bool must_leave(Vcpu& cpu, const Op* op);

}  // namespace trapline::engine::interpret
