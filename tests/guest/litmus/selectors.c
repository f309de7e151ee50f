// Segment registers that a 64-bit program loads by itself, and 32-bit code that it jumps to: what Windows' programs do under
// Wine. The selectors are Linux's, the same everywhere.
#include <sys/syscall.h>
#include <unistd.h>

#include "litmus.h"

enum { data_selector = 0x2b, spins = 20000 };

static uint64_t checks, wrong;

// Without a system call of its own: a stop may come anywhere.
static void compute(void) {
  for (volatile unsigned n = 0; n < spins; n++) {
  }
}

static int have(unsigned selector) {
  uint16_t ds, es, gs;
  __asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%gs, %2" : "=r"(ds), "=r"(es), "=r"(gs));
  return ds == selector && es == selector && gs == selector;
}

static void load(unsigned selector) { __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs" ::"r"(selector)); }

// Two threads of each CPU: half of them have loaded something.
static void selectors_body(unsigned thread) {
  unsigned mine = thread < cpus() ? 0 : data_selector;
  uint64_t bad = 0, all = 0;
  load(mine);
  for (; time_left(); all += 2) {
    compute();
    bad += !have(mine);
    syscall(SYS_sched_yield);
    bad += !have(mine);
  }
  load(0);
  __atomic_fetch_add(&checks, all, __ATOMIC_RELAXED);
  __atomic_fetch_add(&wrong, bad, __ATOMIC_RELAXED);
}

static void loaded_selectors(double seconds) {
  (void)seconds;
  checks = wrong = 0;
  on_threads(cpus() * 2 < max_threads ? cpus() * 2 : max_threads, selectors_body);
  outcome("checks", checks, 0);
  outcome("wrong results", wrong, 1);
}

// 40H is INC EAX there, and a prefix in 64-bit code. INT 80H: getppid.
extern void narrow(void);
extern uint64_t narrow_stack;
extern uint32_t narrow_count, narrow_parent;
__asm__(
    ".data; .balign 8; narrow_stack: .quad 0; narrow_count: .long 0; narrow_parent: .long 0; .text\n"
    "narrow: push %rbp; push %rbx; mov %rsp, narrow_stack\n"
    "  pushq $0x23; pushq $1f; lretq\n"
    ".code32\n"
    "1: mov $0x2b, %eax; mov %eax, %ds; xor %eax, %eax; mov $100000, %ecx\n"
    "2: .byte 0x40; loop 2b\n"
    "  mov %eax, narrow_count; mov $64, %eax; int $0x80; mov %eax, narrow_parent\n"
    "  ljmp $0x33, $3f\n"
    ".code64\n"
    "3: xor %eax, %eax; mov %eax, %ds; mov narrow_stack, %rsp; pop %rbx; pop %rbp; ret\n");

static void narrow_code(double seconds) {
  (void)seconds;
  checks = wrong = 0;
  while (time_left()) {
    compute();
    __asm__ volatile("sub $128, %%rsp; call narrow; add $128, %%rsp" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                           "cc", "memory");
    wrong += narrow_count != 100000 || narrow_parent != (uint32_t)syscall(SYS_getppid);
    checks++;
  }
  outcome("calls", checks, 0);
  outcome("wrong results", wrong, 1);
}

const Test selector_tests[] = {{"loaded-selectors", loaded_selectors}, {"32-bit-code", narrow_code}, {0}};
