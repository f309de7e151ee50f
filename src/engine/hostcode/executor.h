// Runs the blocks of a code cache: into host code, from block to block where host code does not find the way itself,
// what host code calls C++ for, out again; and the accounts that are exact outside of it. What memory and modes are to
// this code is the engine's: ExecutorPolicy.
//
// Owned by the vCPU's thread; signal handlers come in by alarm() and redirect_trap().
#pragma once

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <optional>

#include "engine/accelerator.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/deadline_timer.h"
#include "engine/hostcode/region.h"
#include "engine/hostcode/running_mode.h"
#include "engine/hostcode/thunks.h"
#include "engine/options.h"

namespace trapline::engine::hostcode {

class ExecutorPolicy {
 public:
  // RunningMode and what host code reaches memory by are to be those of the vCPU as it is now. False: it is not to go on.
  virtual bool follow_mode() = 0;
  // An access has found no way to memory. Where host code goes on; nothing: the instruction is the interpreter's.
  virtual std::optional<u64> miss(const ExitStub& stub) = 0;
  // What a thunk could not do has been called, with these general registers before it. `went_on`: and nothing came of
  // it but its effect.
  using Registers = std::array<u64, 16>;
  virtual void called_for_thunk(const ExitStub& stub, const Registers& before, bool went_on) = 0;

 protected:
  ~ExecutorPolicy() = default;
};

class Executor {
 public:
  Executor(cpu::Vcpu& cpu, Region& region, CodeCache& cache, JumpCache& jumps, Remapped& remapped,
           const RunningMode& now, ExecutorPolicy& policy, const EngineOptions& options);
  ~Executor();
  Executor(const Executor&) = delete;

  void emit_thunks(Emitter& out);
  // Everything in the region so far is thunks, which stay.
  void thunks_are_emitted() { code_start_ = region_.used(); }
  const ThunkAddresses& thunks() const { return thunks_; }
  u64 code_start() const { return code_start_; }

  // What the vCPU has been told of code and mappings that are other ones now.
  void heed_changes();
  // As Accelerator::run, once memory and mode are ready.
  ExitReason run(u64 limit);

  // -- For --verify
  // From now on run() executes at most one block. False: this code does not count.
  bool go_block_by_block();
  bool block_by_block() const { return block_by_block_; }
  const Block* entered() const { return entered_; }  // last; null: none
  void forget_entered() { entered_ = nullptr; }

  // -- From signal handlers, async-signal-safe
  void alarm();
  // A fault in host code goes on at trap(); false: it was not there.
  bool redirect_trap(ucontext_t& context);

 private:
  // executor.cpp
  Block* at_rip();
  Resume dispatch(ExitStub* link, bool same_mode = false);
  Resume leave(ExitReason why);
  u64 checked_entry(u64 entry) const;
  void sync(const ExitStub& stub);
  void note_x87(const Block& block, u16 before);
  void rebase();
  bool must_leave() const;

  // calls.cpp
  static Resume on_call(void* self, ExitStub* stub, u64 vectors_were_live);
  Resume call(ExitStub& stub, bool vectors);
  Resume call_out(ExitStub& stub, bool vectors);
  Resume call_for_thunk(ExitStub& stub, bool vectors);
  Resume indirect(ExitStub& stub);

  // fault_entry.cpp
  void hear_signals();
  void adopt_thread();
  void leave_thread();
  Resume trap();
  void count_trapped(Gpa gpa);

  cpu::Vcpu& cpu_;
  Region& region_;
  CodeCache& cache_;
  JumpCache& jumps_;
  Remapped& remapped_;
  const RunningMode& now_;
  ExecutorPolicy& policy_;
  const bool counted_;
  const bool fills_jump_cache_;
  bool block_by_block_ = false;  // nothing leads from one block to another
  ThunkAddresses thunks_;
  ExitStub trap_stub_;
  u64 code_start_ = 0;    // behind the thunks
  u64 base_retired_ = 0;  // cpu.retired when state.left was `base_left_`
  u64 base_left_ = 0;
  u64 limit_ = 0;
  DeadlineTimer timer_;  // sets attention::timer when cpu.timer_deadline has come
  u64 deadline_ = 0;
  const Block* entered_ = nullptr;
  ExitReason left_ = ExitReason::nothing;
};

}  // namespace trapline::engine::hostcode
