// A thunk is a leaf that has changed nothing before its instruction retires: ending it there is "mov rax, cause; ret".
//
// #XM arrives as SIGFPE when the guest has unmasked an SSE exception. The other two should not happen: they keep a
// guest from crashing its core should an encoding pass the decoder that this host rejects.
#include <signal.h>
#include <ucontext.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <mutex>

#include "base/invariant.h"
#include "engine/common/signal_hook.h"
#include "engine/emit/code_arena.h"
#include "engine/vector/op.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine {

bool (*signal_hook)(void*) = nullptr;

namespace {

// SIGBUS: a guest's locked access across a cache line in translated code, where the host kernel forbids those.
constexpr int kSignals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
constexpr unsigned kCount = std::size(kSignals);
struct sigaction previous[kCount];

u64 cause_of(int signal, const ucontext_t& uc) {
  const u64 mxcsr = uc.uc_mcontext.fpregs ? uc.uc_mcontext.fpregs->mxcsr : 0x1f80;
  const vector::Trap trap = signal == SIGFPE   ? vector::Trap::fp_exception
                            : signal == SIGILL ? vector::Trap::illegal
                                               : vector::Trap::protection;
  return mxcsr << 32 | static_cast<u64>(trap);
}

void pass_on(int signal, siginfo_t* info, void* context) {
  for (unsigned i = 0; i < kCount; i++) {
    if (kSignals[i] != signal) continue;
    const struct sigaction& p = previous[i];
    if (p.sa_flags & SA_SIGINFO) return p.sa_sigaction(signal, info, context);
    if (p.sa_handler != SIG_DFL && p.sa_handler != SIG_IGN) return p.sa_handler(signal);
    // Default: the instruction faults again and the process ends as it would have.
    sigaction(signal, &p, nullptr);
  }
}

void on_signal(int signal, siginfo_t* info, void* context) {
  auto* uc = static_cast<ucontext_t*>(context);
  greg_t* r = uc->uc_mcontext.gregs;
  // Only what the CPU raised at this instruction (si_code > 0), not a signal sent by anybody.
  if (info->si_code > 0 && signal_hook && signal_hook(uc)) return;
  if (info->si_code <= 0 || !CodeArena::holds(static_cast<u64>(r[REG_RIP]))) return pass_on(signal, info, context);
  r[REG_RAX] = static_cast<greg_t>(cause_of(signal, *uc));
  u64 return_address;
  std::memcpy(&return_address, reinterpret_cast<const void*>(r[REG_RSP]), 8);
  r[REG_RIP] = static_cast<greg_t>(return_address);
  r[REG_RSP] += 8;
  if (uc->uc_mcontext.fpregs) uc->uc_mcontext.fpregs->mxcsr = 0x1f80;
}

}  // namespace

void install_vector_signal_handler() {
  static std::mutex mutex;
  const std::lock_guard lock{mutex};
  for (unsigned i = 0; i < kCount; i++) {
    struct sigaction action = {}, now = {};
    INVARIANT(sigaction(kSignals[i], nullptr, &now) == 0, "sigaction: {}", std::strerror(errno));
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal) continue;
    previous[i] = now;
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    INVARIANT(sigaction(kSignals[i], &action, nullptr) == 0, "sigaction: {}", std::strerror(errno));
  }
}

}  // namespace trapline::engine
