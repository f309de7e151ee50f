// The core's side of channel/code_writes.h: a thread that forgets code over which devices have written.
#pragma once

#include <atomic>

#include "base/guest_memory.h"
#include "channel/code_writes.h"
#include "cpu/code_map.h"

namespace trapline::core {

// The CodeMap's lines in the memory that the monitor reads; null without devices that write to RAM. Refuses to go on
// (finish.h) when there is no address space.
std::atomic<u64>* map_code_lines(int fd, const GuestMemory& ram);

// One question of the monitor, when there is one that is not `seen`. Returns its number.
u32 answer_code_write(channel::CodeWrites& writes, cpu::CodeMap& code, u32 seen);

// Starts the thread that answers for ever, and waits until it runs. Before the sandbox closes.
void serve_code_writes(channel::CodeWrites& writes, cpu::CodeMap& code);

}  // namespace trapline::core
