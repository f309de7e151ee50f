// Where code and data lie: offsets to the ends of lines and pages, distances, strides, alignment.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "cliffs.h"

// A loop of 68 bytes with instructions of 1 to 10 bytes.
asm(".pushsection .rodata\n"
    "mixed_begin:\n"
    "xor %eax, %eax\n"
    "1: imul $0x12345, %rax, %rax\n"
    "movabs $0x1234567890abcdef, %rcx\n"
    "xor %rcx, %rax\n"
    "lea 0x1000(%rax,%rcx,2), %rdx\n"
    "ror $7, %rax\n"
    "add $0x7654321, %rax\n"
    "mov %eax, %edx\n"
    "and $0x3fffffff, %edx\n"
    "shr $3, %rdx\n"
    "cmp %rdx, %rcx\n"
    "adc $0, %rax\n"
    "nop\n"
    "add %rdx, %rax\n"
    "dec %rdi\n"
    "jnz 1b\n"
    "ret\n"
    "mixed_end:\n"
    "short_begin:\n"
    "1: lea 0x10000000(%rax,%rdi,4), %rax\n"
    "dec %rdi\n"
    "jnz 1b\n"
    "ret\n"
    "short_end:\n"
    ".popsection\n");
extern const char mixed_begin[], mixed_end[], short_begin[], short_end[];

static void code_places(void) {
  const long length = mixed_end - mixed_begin;
  for (long before = 0; before <= length; before++)
    measure_f("page-end", put_code(arena + page_2m - before, mixed_begin, mixed_end), 1, "loop-%ld", before);
  for (long before = 0; before <= short_end - short_begin; before++)
    measure_f("page-end", put_code(arena + page_2m - before, short_begin, short_end), 1, "short-loop-%ld", before);
  for (int at = 0; at < 64; at += 3)
    measure_f("line", put_code(arena + at, mixed_begin, mixed_end), 1, "loop-at-%d", at);
}

static char *left, *right;

static void copy_words(long n) {
  while (n-- > 0)
    for (int i = 0; i < 64; i++) {
      *(volatile uint64_t*)(right + i * 8) = *(volatile uint64_t*)(left + i * 8);
    }
}

// Through C's memcpy: what programs do.
static void copy_block(long n) {
  while (n-- > 0) {
    memcpy(right, left, 1024);
    asm volatile("" ::: "memory");
  }
}

static void distances(void) {
  const uintptr_t base = (uintptr_t)1 << 45;
  left = get_memory_at(base, 2 * page, PROT_READ | PROT_WRITE);
  if (!left) return leave_out("distance", "all", "the address space is in use");
  memset(left, 1, 2 * page);
  for (int shift = 12; shift <= 44; shift++) {
    right = shift == 12 ? left + page : get_memory_at(base + ((uintptr_t)1 << shift), 2 * page, PROT_READ | PROT_WRITE);
    if (!right) continue;
    memset(right, 1, page);
    measure_f("distance", copy_words, 64, "words-2^%d", shift);
    measure_f("distance", copy_block, 1, "memcpy-2^%d", shift);
  }
  munmap(left, 2 * page);
}

static long stride, elements;
static char* strided;

static void read_strided(long n) {
  while (n-- > 0)
    for (long i = 0; i < elements; i++) *(volatile char*)(strided + i * stride);
}

static void write_strided(long n) {
  while (n-- > 0)
    for (long i = 0; i < elements; i++) *(volatile char*)(strided + i * stride) = 1;
}

static void strides(void) {
  strided = get_memory((size_t)64 << 22, PROT_READ | PROT_WRITE);
  madvise(strided, (size_t)64 << 22, MADV_NOHUGEPAGE);
  elements = 64;
  for (stride = 1; stride <= 1 << 22; stride *= 4) {
    measure_f("stride", read_strided, 64, "read-64-by-%ld", stride);
    measure_f("stride", write_strided, 64, "write-64-by-%ld", stride);
  }
  elements = 8192;
  stride = page;
  measure("stride", "read-8192-pages", read_strided, 8192);
  measure("stride", "write-8192-pages", write_strided, 8192);
  munmap(strided, (size_t)64 << 22);
}

static char* at;

#define ACCESS(name, text)                                 \
  static void name(long n) {                               \
    asm volatile("1:\n" text "\n" text "\n" text "\n" text \
                 "\n"                                      \
                 "dec %[n]\n"                              \
                 "jnz 1b"                                  \
                 : [n] "+r"(n)                             \
                 : [at] "r"(at), [buffer] "r"(buffer)      \
                 : "memory", "cc", "rax", "xmm0");         \
  }

ACCESS(load2, "movw (%[at]), %%ax")
ACCESS(load8, "mov (%[at]), %%rax")
ACCESS(store8, "mov %%rax, (%[at])")
ACCESS(add8, "addq $1, (%[at])")
ACCESS(lock_add8, "lock addq $1, (%[at])")
ACCESS(load16, "movups (%[at]), %%xmm0")
ACCESS(store16, "movups %%xmm0, (%[at])")

static void alignments(void) {
  static const struct {
    const char* name;
    Loop loop;
    int size;
  } rows[] = {{"load2", load2, 2}, {"load8", load8, 8},    {"store8", store8, 8},
              {"add8", add8, 8},   {"load16", load16, 16}, {"store16", store16, 16}};
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    at = buffer;
    measure_f("align", rows[i].loop, 4, "%s", rows[i].name);
    at = buffer + 1;
    measure_f("align", rows[i].loop, 4, "%s-odd", rows[i].name);
    at = buffer + 64 - rows[i].size / 2;
    measure_f("align", rows[i].loop, 4, "%s-over-a-line", rows[i].name);
    at = buffer + page - rows[i].size / 2;
    measure_f("align", rows[i].loop, 4, "%s-over-a-page", rows[i].name);
  }
  at = buffer;
  measure("align", "lock-add8", lock_add8, 4);
  at = buffer + 60;
  measure("align", "lock-add8-over-a-line", lock_add8, 4);
  at = buffer + page - 4;
  measure("align", "lock-add8-over-a-page", lock_add8, 4);
}

void places(void) {
  code_places();
  distances();
  strides();
  alignments();
}
