// Code that is changed, and data in the page or the line of code.
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "cliffs.h"

// RDI: n, RSI: where it writes or reads.
asm(".pushsection .rodata\n"
    "writes_begin:\n"
    "1: mov %rdi, (%rsi)\n"
    "dec %rdi\n"
    "jnz 1b\n"
    "ret\n"
    "writes_end:\n"
    "reads_begin:\n"
    "1: mov (%rsi), %rax\n"
    "dec %rdi\n"
    "jnz 1b\n"
    "ret\n"
    "reads_end:\n"
    ".popsection\n");
extern const char writes_begin[], writes_end[], reads_begin[], reads_end[];

static char *code, *data;

static void run_beside(long n) { ((void (*)(long, char*))(uintptr_t)code)(n, data); }

// MOV EAX, imm32; RET. The constant changes before each call.
static void change_and_call(long n) {
  while (n-- > 0) {
    int value = (int)n;
    memcpy(data + 1, &value, 4);
    ((Loop)(uintptr_t)data)(0);
  }
}

static void same_and_call(long n) {
  while (n-- > 0) {
    int value = 7;
    memcpy(data + 1, &value, 4);
    ((Loop)(uintptr_t)data)(0);
  }
}

// As a compiler does: new code behind the old, each run some times.
static void append_and_call(long n) {
  static const unsigned char function[] = {0xB8, 1, 0, 0, 0, 0xC3};
  static long at;
  while (n-- > 0) {
    char* to = data + at;
    at = (at + 16) & 0xfffff;
    memcpy(to, function, sizeof function);
    for (int i = 0; i < 50; i++) ((Loop)(uintptr_t)to)(0);
  }
}

static void fill_code_page(long n) {
  while (n-- > 0) {
    char* di = data;
    long cx = 1024;
    asm volatile("rep stosb" : "+D"(di), "+c"(cx) : "a"(0) : "memory");
    ((void (*)(long, char*))(uintptr_t)code)(1, buffer);
  }
}

static void copy_to_code_page(long n) {
  while (n-- > 0) {
    memcpy(data, buffer, 1024);
    asm volatile("" ::: "memory");
    ((void (*)(long, char*))(uintptr_t)code)(1, buffer);
  }
}

void changes(void) {
  static const unsigned char function[] = {0xB8, 1, 0, 0, 0, 0xC3};
  char* home = arena + (1 << 20);
  memset(home, 0, 16 * page);
  code = (char*)(uintptr_t)put_code(home, writes_begin, writes_end);
  data = home + page;
  measure("change", "write-next-page", run_beside, 1);
  data = home + 2048;
  measure("change", "write-same-page", run_beside, 1);
  data = home + 64;
  measure("change", "write-next-line", run_beside, 1);
  data = home + 32;
  measure("change", "write-same-line", run_beside, 1);
  data = home + 2048;
  measure("change", "stosb-1024-same-page", fill_code_page, 1);
  measure("change", "memcpy-1024-same-page", copy_to_code_page, 1);
  home += 32 * page;
  code = (char*)(uintptr_t)put_code(home, reads_begin, reads_end);
  data = home + 32;
  measure("change", "read-same-line", run_beside, 1);
  data = home + page - 4;
  measure("change", "read-over-end-of-page", run_beside, 1);
  data = home + 8 * page;
  memcpy(data, function, sizeof function);
  measure("change", "constant-each-time", change_and_call, 1);
  measure("change", "same-bytes-each-time", same_and_call, 1);
  data = home + 64 * page;
  measure("change", "append-and-run", append_and_call, 1);
}
