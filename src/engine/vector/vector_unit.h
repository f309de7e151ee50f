// Executes x87, MMX, SSE..AVX-512, AES, SHA, GFNI, and mask-register instructions on the host CPU: exact by
// construction.
//
// prepare() turns a decoded instruction into a thunk: the same instruction with its memory operand replaced by a
// pointer and its general registers by fixed ones, wrapped in loads and stores of exactly the vector registers it
// names. Equal instructions share a thunk. Decode-time work; execute() is the run-time part.
#pragma once

#include <memory>

#include "cpu/vcpu.h"
#include "engine/emit/code_arena.h"
#include "isa/raw.h"

namespace trapline::engine {

// What execute() needs, in the engine's block. Trivially copyable. Filled in by prepare(). All but `thunk` and `unit`
// is private to engine/vector.
struct VectorOp {
  const u8* thunk = nullptr;
  u8 unit = 0;           // cpu::Unit: what to check first
  u8 kind = 0;           // vector::Kind: how memory is reached
  u8 flags = 0;          // vector::Flag
  u8 align_mask = 0;     // memory operand: #GP(0) unless linear & align_mask == 0
  u16 mem_bytes = 0;     // whole memory operand
  u16 fop = 0;           // x87: the opcode register's value
  u8 element_bytes = 0;  // masked and gathered operands: one element
  u8 count = 0;          // mask bits that count, or elements gathered
  u8 mask_reg = 0;       // opmask, or the vector register that masks (VEX)
  u8 data_reg = 0;       // gathers and scatters: the vector register of the data
  u8 index_bytes = 0;    // gathers and scatters: size of one index
};

enum class Prepared : u8 {
  yes,
  not_vector /* not this unit's */,
  undefined /* #UD on this CPU policy */,
  arena_full /* flush all, try again */
};

class VectorUnit {
 public:
  explicit VectorUnit(CodeArena& arena);
  ~VectorUnit();
  Prepared prepare(const cpu::Vcpu& cpu, const isa::Insn& insn, VectorOp& out);
  // For those who have it decoded: with `thunk`, and all but it, for who will not execute() it.
  Prepared prepare(const cpu::Vcpu& cpu, const isa::Insn& insn, const isa::Raw& raw, VectorOp& out);
  Prepared describe(const cpu::Vcpu& cpu, const isa::Raw& raw, VectorOp& out);
  void forget_all();  // before CodeArena::reset()

  // Runs it: checks, memory operand through the MMU (alignment #GP of legacy SSE, masked faults of AVX-512 and gathers,
  // #AC), thunk, write-back, #XM and #MF. Outcome next or fault. cpu.rip must be exact.
  static cpu::Outcome execute(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op);
  // Of a gather or scatter: the linear addresses of its elements, active or not. How many there are.
  static constexpr unsigned kMostElements = 16;
  static unsigned element_addresses(const cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op,
                                    u64 (&out)[kMostElements]);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Host signal support: a thunk whose instruction raises #XM (SIGFPE), or that this host will not execute after all
// (SIGILL, SIGSEGV), returns to execute() with a code. Signals from elsewhere go to whoever handled them before.
// Installs the handlers, once per process (core, tests, fuzzers), before the sandbox closes; install others of one's
// own before it.
void install_vector_signal_handler();

}  // namespace trapline::engine
