// Guest RSP is in the host's RSP while translated code runs: signals need a stack of their own.
#pragma once

namespace trapline::engine::hostcode {

// Gives the calling thread one, unless it has it. The kernel does not take it for the one in use, whatever RSP holds.
void give_thread_a_signal_stack();

}  // namespace trapline::engine::hostcode
