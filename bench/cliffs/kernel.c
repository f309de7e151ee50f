// What a kernel is asked for: mappings that come and go, faults, signals, system calls.
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cliffs.h"

static char* area;
static long pages;

static void system_call(long n) {
  while (n-- > 0) syscall(SYS_getppid);
}

static void system_call_int80(long n) {
  while (n-- > 0) {
    long number = 64;  // getppid
    asm volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
  }
}

static void read_clock(long n) {
  struct timespec t;
  while (n-- > 0) clock_gettime(CLOCK_MONOTONIC, &t);
}

static void yield(long n) {
  while (n-- > 0) syscall(SYS_sched_yield);
}

static void protect_write(long n) {
  while (n-- > 0) {
    mprotect(area, (size_t)pages * page, PROT_READ);
    mprotect(area, (size_t)pages * page, PROT_READ | PROT_WRITE);
    for (long i = 0; i < pages; i++) area[i * page]++;
  }
}

// As a careful compiler does: never writable and executable at once.
static void protect_execute(long n) {
  static const unsigned char function[] = {0xB8, 1, 0, 0, 0, 0xC3};
  while (n-- > 0) {
    mprotect(area, page, PROT_READ | PROT_WRITE);
    memcpy(area + (n & 63) * 64, function, sizeof function);
    mprotect(area, page, PROT_READ | PROT_EXEC);
    ((Loop)(uintptr_t)(area + (n & 63) * 64))(0);
  }
  mprotect(area, page, PROT_READ | PROT_WRITE);
}

static void map_touch_unmap(long n) {
  while (n-- > 0) {
    char* p = mmap(0, (size_t)pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long i = 0; i < pages; i++) p[i * page] = 1;
    munmap(p, (size_t)pages * page);
  }
}

static void drop_and_touch(long n) {
  while (n-- > 0) {
    for (long i = 0; i < pages; i++) area[i * page] = 1;
    madvise(area, (size_t)pages * page, MADV_DONTNEED);
  }
}

static void fork_and_wait(long n) {
  while (n-- > 0) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, 0, 0);
  }
}

static void nothing(int number) { (void)number; }

static void skip(int number, siginfo_t* info, void* context) {
  (void)number, (void)info;
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP] += ((ucontext_t*)context)->uc_mcontext.gregs[REG_RCX];
}

static void signal_self(long n) {
  signal(SIGUSR1, nothing);
  while (n-- > 0) kill(getpid(), SIGUSR1);
}

static void catch_with(int number) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};
  action.sa_sigaction = skip;
  sigaction(number, &action, 0);
}

static void fault_page(long n) {
  catch_with(SIGSEGV);
  while (n-- > 0) asm volatile("1: movb $1, (%0)\n2:" : : "r"(8L), "c"(3L) : "memory");
}

static void fault_divide(long n) {
  catch_with(SIGFPE);
  while (n-- > 0)
    asm volatile("xor %%edx, %%edx\nxor %%esi, %%esi\ndiv %%esi" : : "a"(1L), "c"(2L) : "rdx", "rsi", "cc");
}

static void fault_opcode(long n) {
  catch_with(SIGILL);
  while (n-- > 0) asm volatile("ud2" : : "c"(2L));
}

static void breakpoint(long n) {
  catch_with(SIGTRAP);
  while (n-- > 0) asm volatile("int3" : : "c"(0L));
}

static void pipe_turn(long n) {
  int ends[2];
  char byte = 0;
  if (pipe(ends) != 0) return;
  while (n-- > 0)
    if (write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1) break;
  close(ends[0]);
  close(ends[1]);
}

// New pages that are `apart` bytes from each other, 512 to a mapping.
static long apart;
static void touch_sparsely(long n) {
  const size_t bytes = (size_t)apart * 512;
  while (n > 0) {
    char* p = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return;
    madvise(p, bytes, MADV_NOHUGEPAGE);
    for (long i = 0; i < 512 && n-- > 0; i++) p[i * apart] = 1;
    munmap(p, bytes);
  }
}

static void sparse_rows(void) {
  for (int k = 16; k <= 26; k += 2) {
    apart = 1L << k;
    measure_f("map", touch_sparsely, 1, "new-pages-apart-2^%d", k);
  }
}

static void mapping_rows(const char* after) {
  static const int counts[] = {1, 16, 256};
  for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
    pages = counts[i];
    measure_f("map", protect_write, 1, "mprotect-write-%ld%s", pages, after);
    measure_f("map", map_touch_unmap, 1, "mmap-touch-munmap-%ld%s", pages, after);
    measure_f("map", drop_and_touch, 1, "dontneed-touch-%ld%s", pages, after);
  }
  measure_f("map", protect_execute, 1, "mprotect-execute%s", after);
}

void kernel(void) {
  area = get_memory(256 * page, PROT_READ | PROT_WRITE);
  madvise(area, 256 * page, MADV_NOHUGEPAGE);
  measure("kernel", "getppid", system_call, 1);
  if (works(system_call_int80))
    measure("kernel", "getppid-int80", system_call_int80, 1);
  else
    leave_out("kernel", "getppid-int80", "this kernel has no 32-bit system calls");
  measure("kernel", "clock_gettime", read_clock, 1);
  measure("kernel", "sched_yield", yield, 1);
  measure("kernel", "pipe", pipe_turn, 1);
  measure("kernel", "signal", signal_self, 1);
  measure("kernel", "page-fault-signal", fault_page, 1);
  measure("kernel", "divide-fault-signal", fault_divide, 1);
  measure("kernel", "opcode-fault-signal", fault_opcode, 1);
  measure("kernel", "breakpoint-signal", breakpoint, 1);
  measure("kernel", "fork", fork_and_wait, 1);
  sparse_rows();
  mapping_rows("");
  // Much touched before, everywhere.
  char* much = get_memory((size_t)256 << 20, PROT_READ | PROT_WRITE);
  madvise(much, (size_t)256 << 20, MADV_NOHUGEPAGE);
  for (size_t i = 0; i < (size_t)256 << 20; i += page) *(volatile char*)(much + i);
  mapping_rows("-after-much");
  measure("kernel", "getppid-after-much", system_call, 1);
}
