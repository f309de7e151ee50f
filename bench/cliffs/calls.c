// Calls by depth, indirect targets by number, far transfers, and 32-bit code in a 64-bit program.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "cliffs.h"

static long depth;

static __attribute__((noinline)) long descend(long left) {
  long r = left > 0 ? descend(left - 1) : 0;
  asm volatile("" : "+r"(r));
  return r + 1;
}

static void recurse(long n) {
  while (n-- > 0) descend(depth);
}

// Targets of 16 bytes each, all over the arena: MOV EAX, imm; RET.
static Loop* targets;
static long target_count;

static void call_targets(long n) {
  while (n-- > 0)
    for (long i = 0; i < target_count; i++) targets[i](i);
}

static void call_one_site(long n) {
  while (n-- > 0) {
    static unsigned long state = 1;
    state = state * 6364136223846793005u + 1;
    targets[(state >> 33) & (unsigned long)(target_count - 1)](0);
  }
}

static void indirect(void) {
  static Loop list[4096];
  static const unsigned char code[] = {0xB8, 1, 0, 0, 0, 0xC3};
  targets = list;
  for (target_count = 1; target_count <= 4096; target_count *= 4) {
    for (long i = 0; i < target_count; i++) {
      char* at = arena + i * 1008;
      memcpy(at, code, sizeof code);
      list[i] = (Loop)(uintptr_t)at;
    }
    measure_f("call", call_targets, (double)target_count, "targets-in-turn-%ld", target_count);
    measure_f("call", call_one_site, 1, "targets-at-random-%ld", target_count);
  }
}

// Two targets whose addresses are alike in their low bits.
static void alike(void) {
  static Loop list[2];
  static const unsigned char code[] = {0xB8, 1, 0, 0, 0, 0xC3};
  targets = list;
  target_count = 2;
  char* low = get_memory_at((uintptr_t)1 << 44, page, PROT_READ | PROT_WRITE | PROT_EXEC);
  for (int shift = 12; low && shift <= 40; shift++) {
    char* high = shift == 12 ? low + 2048
                             : get_memory_at(((uintptr_t)1 << 44) + ((uintptr_t)1 << shift), page,
                                             PROT_READ | PROT_WRITE | PROT_EXEC);
    if (!high) continue;
    memcpy(low, code, sizeof code);
    memcpy(high, code, sizeof code);
    list[0] = (Loop)(uintptr_t)low, list[1] = (Loop)(uintptr_t)high;
    measure_f("call", call_targets, 2, "targets-apart-2^%d", shift);
  }
}

static void push_ret(long n) {
  asm volatile(
      "1: lea 2f(%%rip), %%rax\n"
      "push %%rax\n"
      "ret\n"
      "2: dec %0\n"
      "jnz 1b"
      : "+r"(n)
      :
      : "rax", "cc", "memory");
}

// To the code segment that is in force.
static void far_return(long n) {
  asm volatile(
      "1: mov %%cs, %%eax\n"
      "push %%rax\n"
      "lea 2f(%%rip), %%rax\n"
      "push %%rax\n"
      "lretq\n"
      "2: dec %0\n"
      "jnz 1b"
      : "+r"(n)
      :
      : "rax", "cc", "memory");
}

// With 32-bit offsets, which all makers have: the program lies low.
typedef struct {
  uint32_t offset;
  uint16_t selector;
} __attribute__((packed)) FarPointer;

static void far_call(long n) {
  static FarPointer pointer;
  asm volatile(
      "lea 3f(%%rip), %%eax\n"
      "mov %%eax, %[pointer]\n"
      "mov %%cs, %%eax\n"
      "mov %%ax, 4+%[pointer]\n"
      "1: lcall *%[pointer]\n"
      "dec %[n]\n"
      "jnz 1b\n"
      "jmp 4f\n"
      "3: lretl\n"
      "4:"
      : [n] "+r"(n), [pointer] "+m"(pointer)
      :
      : "rax", "cc", "memory");
}

static void far_jump(long n) {
  static FarPointer pointer;
  asm volatile(
      "lea 3f(%%rip), %%eax\n"
      "mov %%eax, %[pointer]\n"
      "mov %%cs, %%eax\n"
      "mov %%ax, 4+%[pointer]\n"
      "1: ljmp *%[pointer]\n"
      "3: dec %[n]\n"
      "jnz 1b\n"
      : [n] "+r"(n), [pointer] "+m"(pointer)
      :
      : "rax", "cc", "memory");
}

static void iret(long n) {
  asm volatile(
      "1: mov %%rsp, %%rcx\n"
      "mov %%ss, %%eax\n"
      "push %%rax\n"
      "push %%rcx\n"
      "pushf\n"
      "mov %%cs, %%eax\n"
      "push %%rax\n"
      "lea 2f(%%rip), %%rax\n"
      "push %%rax\n"
      "iretq\n"
      "2: dec %0\n"
      "jnz 1b"
      : "+r"(n)
      :
      : "rax", "rcx", "cc", "memory");
}

// Code segments of Linux.
enum { code32 = 0x23, code64 = 0x33 };

// In low memory, on a stack there: to 32-bit code, and back, and on. RDI: n.
asm(".pushsection .rodata\n"
    "to32_begin:\n"
    "push %rbx\n"
    "mov %rsp, %rbx\n"
    "lea to32_end-to32_begin+2048(%rip), %rsp\n"
    "and $-16, %rsp\n"
    "1: sub $8, %rsp\n"
    "lea 2f(%rip), %eax\n"
    "mov %eax, (%rsp)\n"
    "movl $0x23, 4(%rsp)\n"
    "lretl\n"
    ".code32\n"
    "2: mov $0x33, %ecx\n"
    "push %ecx\n"
    "call 4f\n"
    "4: addl $3f-4b, (%esp)\n"
    "lretl\n"
    ".code64\n"
    "3: dec %edi\n"
    "jnz 1b\n"
    "mov %rbx, %rsp\n"
    "pop %rbx\n"
    "ret\n"
    "to32_end:\n"
    // A loop of 32-bit code, entered once a call.
    "in32_begin:\n"
    "push %rbx\n"
    "mov %rsp, %rbx\n"
    "lea in32_end-in32_begin+2048(%rip), %rsp\n"
    "and $-16, %rsp\n"
    "sub $8, %rsp\n"
    "lea 2f(%rip), %eax\n"
    "mov %eax, (%rsp)\n"
    "movl $0x23, 4(%rsp)\n"
    "lretl\n"
    ".code32\n"
    "2: push %edi\n"
    "xor (%esp), %eax\n"
    "call 5f\n"
    "pop %ecx\n"
    "sub $1, %edi\n"
    "jnz 2b\n"
    "push $0x33\n"
    "call 4f\n"
    "4: addl $3f-4b, (%esp)\n"
    "lret\n"
    "5: add $3, %eax\n"
    "ret\n"
    ".code64\n"
    "3: mov %rbx, %rsp\n"
    "pop %rbx\n"
    "ret\n"
    "in32_end:\n"
    ".popsection\n");
extern const char to32_begin[], to32_end[], in32_begin[], in32_end[];

static void mixed_modes(void) {
  char* low = mmap(0, 16 * page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (low == MAP_FAILED) return leave_out("far", "32-bit", "no memory below 2 GiB");
  memset(low, 0, 16 * page);
  if (!works(put_code(low, to32_begin, to32_end))) {
    munmap(low, 16 * page);
    return leave_out("far", "32-bit", "this kernel has no 32-bit code segment");
  }
  measure("far", "to-32-bit-and-back", put_code(low, to32_begin, to32_end), 1);
  measure("far", "32-bit-loop", put_code(low + 4 * page, in32_begin, in32_end), 1);
  const long length = in32_end - in32_begin;
  for (long before = 16; before < length; before += 8) {
    measure_f("far", put_code(low + 12 * page - before, in32_begin, in32_end), 1, "32-bit-loop-at-page-end-%ld",
              before);
  }
  munmap(low, 16 * page);
}

void calls(void) {
  static const int depths[] = {1, 8, 64, 512, 8192};
  for (unsigned i = 0; i < sizeof depths / sizeof *depths; i++) {
    depth = depths[i];
    measure_f("call", recurse, (double)depth, "depth-%ld", depth);
  }
  indirect();
  alike();
  measure("call", "push-ret", push_ret, 1);
}

void far_branches(void) {
  measure("far", "lret", far_return, 1);
  measure("far", "lcall-lret", far_call, 1);
  measure("far", "ljmp", far_jump, 1);
  measure("far", "iret", iret, 1);
  mixed_modes();
}
