// Another receiver of the signals that the vector unit's handler takes (SIGFPE, SIGILL, SIGSEGV).
#pragma once

namespace trapline::engine {

// Called first with the ucontext_t of a fault of this thread's; true: dealt with. Set before threads start.
// Async-signal-safe.
extern bool (*signal_hook)(void* ucontext);

}  // namespace trapline::engine
