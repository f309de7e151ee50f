#include "base/shadow_stack.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

namespace trapline {

namespace {

constexpr unsigned kArchShstkStatus = 0x5005;  // <asm/prctl.h> of Linux 6.6
constexpr u64 kShstk = 1;

}  // namespace

bool shadow_stack_on() {
  u64 features = 0;
  return ::syscall(SYS_arch_prctl, kArchShstkStatus, &features) == 0 && (features & kShstk);
}

}  // namespace trapline
