// Back into translated code from a signal handler without the kernel.
//
// Guest RSP is the host's, and need not be canonical. With such an RSP some hosts cannot return to user code: the
// kernel's IRETQ faults, at any interrupt, and the process gets SIGSEGV for an instruction that has done nothing wrong
// (seen with Linux 6.18 in a VM on AMD family 26 whose kernel runs deprivileged; an IRETQ within ring 3 does not mind).
// sigreturn would end the same way.
#pragma once

#include <ucontext.h>

#include "base/types.h"

namespace trapline::engine::hostcode {

// What the last steps need, where no signal that comes meanwhile writes to it. In the order in which it is popped.
struct ResumeFrame {
  u64 gpr[15] = {};  // as in ucontext: R8 to R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX
  u64 rip = 0, cs = 0, rflags = 0, rsp = 0, ss = 0;
};

// Goes on where `context` says: registers, vector state, RFLAGS, RIP and RSP; the signal stack is armed again.
// Async-signal-safe.
[[noreturn]] void resume_by_hand(const ucontext_t& context, ResumeFrame& frame);

}  // namespace trapline::engine::hostcode
