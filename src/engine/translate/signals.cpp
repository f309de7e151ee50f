// Signals on a thread that runs translated code: the timer, and faults of guest instructions.
#include "engine/translate/translator.h"

#include <signal.h>
#include <ucontext.h>

#include "base/invariant.h"
#include "engine/common/signal_hook.h"
#include "engine/hostcode/resume.h"
#include "engine/hostcode/signal_stack.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

namespace {

thread_local Translator* current = nullptr;  // whose code runs on this thread

void on_alarm(int) {
  if (current) current->alarm();
}

}  // namespace

void Translator::hear_signals(bool timer) {
  signal_hook = handle_signal;
  if (!timer) return;
  struct sigaction action = {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  INVARIANT(sigaction(SIGALRM, &action, nullptr) == 0, "sigaction of SIGALRM failed");
}

void Translator::adopt_thread() {
  if (current == this) return;
  current = this;
  if (!counted_) timer_.create();
  give_thread_a_signal_stack();
}

void Translator::leave_thread() {
  if (current == this) current = nullptr;
}

void Translator::alarm() {
  timer_.fired();
  cpu_.attention->fetch_or(cpu::attention::timer, std::memory_order_release);
}

// With an RSP that is not canonical the signal may have come only because the kernel could not return here (resume.h):
// what comes again at once, at an instruction of the guest, is that instruction's own.
bool Translator::redirect_trap(ucontext_t& context) {
  greg_t* const g = context.uc_mcontext.gregs;
  const u64 pc = static_cast<u64>(g[REG_RIP]), rsp = static_cast<u64>(g[REG_RSP]);
  if (!region_->holds(pc)) return false;
  State& s = region_->state();
  const bool guests_own = region_->holds_hot(pc, code_start_) && s.resumed_pc == pc;
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

bool handle_signal(void* context) { return current && current->redirect_trap(*static_cast<ucontext_t*>(context)); }

}  // namespace trapline::engine::translate
