#include "engine/hostcode/signal_stack.h"

#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/invariant.h"
#include "base/types.h"

namespace trapline::engine::hostcode {

namespace {

// <linux/signal.h> has it; glibc 2.36 does not.
constexpr u32 kAutoDisarm = 1u << 31;

}  // namespace

void give_thread_a_signal_stack() {
  static thread_local bool has_stack = false;
  if (has_stack) return;
  const u64 bytes = std::max<u64>(getauxval(AT_MINSIGSTKSZ), 16 * KiB) + 64 * KiB;
  stack_t stack = {};
  stack.ss_sp = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack.ss_size = bytes;
  stack.ss_flags = static_cast<int>(kAutoDisarm);
  INVARIANT(stack.ss_sp != MAP_FAILED && sigaltstack(&stack, nullptr) == 0, "no stack for signals");
  has_stack = true;
}

}  // namespace trapline::engine::hostcode
