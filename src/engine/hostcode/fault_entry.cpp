// Signals on a thread that runs host code of blocks: the timer, and faults of guest instructions.
#include "engine/hostcode/executor.h"

#include "base/invariant.h"
#include "engine/common/sensitive_counts.h"
#include "engine/common/signal_hook.h"
#include "engine/hostcode/resume.h"
#include "engine/hostcode/signal_stack.h"

namespace trapline::engine::hostcode {

using cpu::Vcpu;

namespace {

thread_local Executor* current = nullptr;  // whose code runs on this thread

void on_alarm(int) {
  if (current) current->alarm();
}

// signal_hook
bool on_fault(void* context) { return current && current->redirect_trap(*static_cast<ucontext_t*>(context)); }

}  // namespace

void Executor::hear_signals() {
  signal_hook = on_fault;
  if (counted_) return;
  struct sigaction action = {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  INVARIANT(sigaction(SIGALRM, &action, nullptr) == 0, "sigaction of SIGALRM failed");
}

void Executor::adopt_thread() {
  if (current == this) return;
  current = this;
  if (!counted_) timer_.create();
  give_thread_a_signal_stack();
}

void Executor::leave_thread() {
  if (current == this) current = nullptr;
}

void Executor::alarm() {
  timer_.fired();
  cpu_.attention->fetch_or(cpu::attention::timer, std::memory_order_release);
}

// With an RSP that is not canonical the signal may have come only because the kernel could not return here (resume.h):
// what comes again at once, at an instruction of the guest, is that instruction's own.
bool Executor::redirect_trap(ucontext_t& context) {
  greg_t* const g = context.uc_mcontext.gregs;
  const u64 pc = static_cast<u64>(g[REG_RIP]), rsp = static_cast<u64>(g[REG_RSP]);
  if (!region_.holds(pc)) return false;
  State& s = region_.state();
  const bool guests_own = region_.holds_hot(pc, code_start_) && s.resumed_pc == pc;
  s.resumed_pc = 0;
  if (!cpu::canonical(rsp) && !guests_own) {
    s.resumed_pc = pc;
    resume_by_hand(context, s.resume);
  }
  s.trap_pc = pc;
  s.trap_rsp = rsp;
  g[REG_RIP] = static_cast<greg_t>(thunks_.trap);
  g[REG_RSP] = static_cast<greg_t>(s.host_rsp);
  return true;
}

// A signal ended an instruction of a block: the interpreter executes it and raises what is to be raised.
Resume Executor::trap() {
  const u64 pc = region_.state().trap_pc;
  const Block& block = cache_.at_host(pc);
  const u32 at = static_cast<u32>(pc - block.entry);
  u16 index = 0;
  while (index + 1u < block.insns.size() && block.insns[index + 1u].host <= at) index++;
  note_x87(block, index);
  if (counted_) cpu_.retired = base_retired_ + (base_left_ - region_.state().left) - (block.count - index);
  cpu_.rip = block.key.linear.raw + block.insns[index].guest;
  if (sensitive_counts && *reinterpret_cast<const u8*>(pc) == kTrap) [[unlikely]]
    count_trapped(block.key.gpa.wrapping_add(block.insns[index].guest));
  return leave(ExitReason::one);
}

// The interpreter will count it as its own: that is made up for.
void Executor::count_trapped(Gpa gpa) {
  const u64 left = kPageSize - gpa.page_offset();
  isa::Insn insn;
  if (isa::decode(reinterpret_cast<const u8*>(cpu_.ram->host(gpa)), left, cpu_.code_size(), cpu_.vendor(), insn) !=
      isa::DecodeStatus::ok)
    return;
  if (u64* const trapped = sensitive_count(cpu_, insn, Way::trapped))
    ++*trapped, --*sensitive_count(cpu_, insn, Way::interpreted);
}

}  // namespace trapline::engine::hostcode
