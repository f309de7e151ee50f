// The first touch of memory is dear: the host finds it and clears it, and a host that is itself a guest may have to ask
// for it first (3 ns a byte were seen: a third of a boot). What is likely to be needed next is touched by a thread of
// its own, where a process has one and the host a CPU to spare.
#pragma once

#include "base/types.h"

namespace trapline {

// Asks for [at, at + bytes) to have memory soon; whoever comes first gives it. Never waits, and may be forgotten. Nothing
// happens unless somebody serves. Any thread.
void touch_ahead(const void* at, u64 bytes);
void touch_ahead_spare();  // the same for spare_huge()

// A populated huge page, which is the caller's; or null. Any thread.
void* spare_huge();

// Who serves: `ask` passes requests on to the thread that calls serve_touch(). Once, before there are requests.
void set_touch_ahead(void (*ask)(u64 at, u64 bytes));
void serve_touch(u64 at, u64 bytes);

}  // namespace trapline
