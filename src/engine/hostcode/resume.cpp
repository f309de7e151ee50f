#include "engine/hostcode/resume.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

namespace trapline::engine::hostcode {

namespace {

// Of the signal frame's floating-point state: which components it has (<asm/sigcontext.h>, struct _fpx_sw_bytes).
u64 components(const void* fpregs) {
  constexpr u32 kMagic1 = 0x46505853;
  u32 magic;
  u64 features;
  std::memcpy(&magic, static_cast<const u8*>(fpregs) + 464, sizeof magic);
  std::memcpy(&features, static_cast<const u8*>(fpregs) + 464 + 8, sizeof features);
  return magic == kMagic1 ? features : 3;  // x87 and SSE are always there
}

}  // namespace

void resume_by_hand(const ucontext_t& context, ResumeFrame& frame) {
  const greg_t* const g = context.uc_mcontext.gregs;
  static_assert(REG_R8 == 0 && REG_RDI == 8 && REG_RCX == 14);
  std::copy_n(g, 15, reinterpret_cast<greg_t*>(frame.gpr));
  frame.rip = static_cast<u64>(g[REG_RIP]);
  frame.rsp = static_cast<u64>(g[REG_RSP]);
  frame.rflags = static_cast<u64>(g[REG_EFL]);
  asm("mov %%cs, %0" : "=r"(frame.cs));
  asm("mov %%ss, %0" : "=r"(frame.ss));
  const u64 features = components(context.uc_mcontext.fpregs);
  // The handler began with cleared vector registers (the kernel keeps the old ones in the frame): nothing compiled may
  // run behind XRSTOR. Once the signal stack is armed, a signal may write over everything on it.
  asm volatile(
      "xrstor64 (%[fp])\n\t"
      "movl %[number], %%eax\n\t"
      "xorl %%esi, %%esi\n\t"
      "syscall\n\t"
      "movq %%rbx, %%rsp\n\t"
      "popq %%r8\n\tpopq %%r9\n\tpopq %%r10\n\tpopq %%r11\n\tpopq %%r12\n\tpopq %%r13\n\tpopq %%r14\n\tpopq %%r15\n\t"
      "popq %%rdi\n\tpopq %%rsi\n\tpopq %%rbp\n\tpopq %%rbx\n\tpopq %%rdx\n\tpopq %%rax\n\tpopq %%rcx\n\t"
      "iretq"
      :
      : [fp] "r"(context.uc_mcontext.fpregs), "a"(static_cast<u32>(features)), "d"(static_cast<u32>(features >> 32)),
        "D"(&context.uc_stack), "b"(&frame), [number] "i"(SYS_sigaltstack)
      : "memory");
  __builtin_unreachable();
}

}  // namespace trapline::engine::hostcode
