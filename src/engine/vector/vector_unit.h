// Executes x87, MMX, SSE..AVX-512, AES, SHA, GFNI, and mask-register instructions on the host CPU: exact by construction.
//
// prepare() turns a decoded instruction into a thunk: the same instruction with its memory operand replaced by a scratch buffer
// and its general registers by fixed ones, wrapped in loads and stores of exactly the vector registers it names. Equal
// instructions share a thunk. Decode-time work; execute() is the run-time part.
#pragma once

#include <memory>

#include "cpu/vcpu.h"
#include "engine/common/code_arena.h"

namespace trapline::engine {

// What execute() needs, in the engine's block. Trivially copyable. Filled in by prepare().
struct VectorOp {
  const u8* thunk = nullptr;
  u8 unit = 0;             // cpu::Unit: what to check first
  u8 flags = 0;            // private to vector_unit.cpp
  u16 mem_bytes = 0;
  u32 info = 0;            // private
};

enum class Prepared : u8 { yes, not_vector /* not this unit's */, undefined /* #UD on this CPU policy */, arena_full /* flush all, try again */ };

class VectorUnit {
 public:
  explicit VectorUnit(CodeArena& arena);
  ~VectorUnit();
  Prepared prepare(const cpu::Vcpu& cpu, const isa::Insn& insn, VectorOp& out);
  void forget_all();  // before CodeArena::reset()

  // Runs it: checks, memory operand through the MMU (alignment #GP of legacy SSE, masked faults of AVX-512 and gathers, #AC), thunk,
  // write-back, #XM and #MF. Outcome next or fault. cpu.rip must be exact.
  static cpu::Outcome execute(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Host signal support for #MF: thunks may raise SIGFPE. Installs the handler, once per process (core, tests, fuzzers).
void install_vector_signal_handler();

}  // namespace trapline::engine
