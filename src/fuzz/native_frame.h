// The registers in a signal frame: struct ucontext and the XSAVE image behind it (Linux
// arch/x86/include/uapi/asm/sigcontext.h; SDM Vol. 1 chapter 13).
#pragma once

#include <ucontext.h>

#include "fuzz/state.h"

namespace trapline::fuzz {

// Places of the XSAVE components in the standard format; found before the sandbox closes.
struct FrameLayout {
  u32 avx = 0, opmask = 0, zmm_high = 0, zmm_16_31 = 0;  // 0: not there
  static FrameLayout of_host();
};

void load_frame(ucontext_t& to, const Registers& from, u64 rip, const FrameLayout& layout);
void save_frame(const ucontext_t& from, Registers& to, const FrameLayout& layout);

}  // namespace trapline::fuzz
