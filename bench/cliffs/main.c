// Runs all rows: as a guest's /init, or as a program on the machine itself. An argument, or cliffs=A,B on the kernel's
// command line, chooses kinds.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../guest/console.h"
#include "cliffs.h"

char *arena, *buffer;
static const char* only = "";
static const double enough = 0.0015;  // seconds of a timed run

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int chosen(const char* kind) {
  if (!*only) return 1;
  size_t length = strlen(kind);
  for (const char* at = only; (at = strstr(at, kind)); at += length) {
    int begins = at == only || at[-1] == ',', ends = at[length] == 0 || at[length] == ',';
    if (begins && ends) return 1;
  }
  return 0;
}

// Doubles the work until a run is long enough, then takes the best of three. A loop that is very slow is run once.
void measure(const char* kind, const char* name, Loop loop, double per_turn) {
  if (!chosen(kind)) return;
  loop(64);  // translators are to see it some times
  double best = 0;
  long n = 16;
  for (;; n *= 2) {
    double start = now();
    loop(n);
    best = now() - start;
    if (best >= enough || n > 1L << 40) break;
  }
  for (int i = 0; i < 2 && best < 0.5; i++) {
    double start = now();
    loop(n);
    double t = now() - start;
    if (t < best) best = t;
  }
  console_line("CLIFF %s %s %.4f", kind, name, best * 1e9 / ((double)n * per_turn));
}

void measure_f(const char* kind, Loop loop, double per_turn, const char* format, ...) {
  char name[64];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  measure(kind, name, loop, per_turn);
}

void leave_out(const char* kind, const char* name, const char* why) {
  if (chosen(kind)) console_line("CLIFF-NOT %s %s %s", kind, name, why);
}

static sigjmp_buf back;

static void go_back(int number) {
  (void)number;
  siglongjmp(back, 1);
}

int works(Loop loop) {
  static const int numbers[] = {SIGSEGV, SIGILL, SIGBUS};
  static char stack[1 << 16];
  const stack_t there = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&there, 0);
  struct sigaction action = {.sa_handler = go_back, .sa_flags = SA_ONSTACK}, before[3];
  for (int i = 0; i < 3; i++) sigaction(numbers[i], &action, &before[i]);
  volatile int good = 0;
  if (sigsetjmp(back, 1) == 0) {
    loop(1);
    good = 1;
  }
  for (int i = 0; i < 3; i++) sigaction(numbers[i], &before[i], 0);
  return good;
}

static _Noreturn void give_up(const char* what) {
  console_line("CLIFF-ERROR %s", what);
  exit(1);
}

char* get_memory(size_t bytes, int protection) {
  char* all = mmap(0, bytes + page_2m, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) give_up("no memory");
  return (char*)(((uintptr_t)all + page_2m - 1) & ~(uintptr_t)(page_2m - 1));
}

char* get_memory_at(uintptr_t address, size_t bytes, int protection) {
  char* p =
      mmap((void*)address, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (p == (char*)address) return p;
  if (p != MAP_FAILED) munmap(p, bytes);
  return 0;
}

Loop put_code(char* to, const char* from, const char* end) {
  memcpy(to, from, (size_t)(end - from));
  return (Loop)(uintptr_t)to;
}

// In a process of its own: QEMU 7.2's far return from ring 3 faults under SMAP, for one.
static void run_apart(const char* what, void (*rows)(void)) {
  pid_t child = fork();
  if (child == 0) {
    rows();
    _exit(0);
  }
  int status = 1;
  while (waitpid(child, &status, 0) != child) {
  }
  if (status != 0) console_line("CLIFF-NOT %s all-others ended by status 0x%x", what, (unsigned)status);
}

static void start_guest(void) {
  static char line[4096];
  mount("proc", "/proc", "proc", 0, 0);
  mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
  int file = open("/proc/cmdline", O_RDONLY);
  ssize_t n = file < 0 ? 0 : read(file, line, sizeof line - 1);
  line[n > 0 ? n : 0] = 0;
  close(file);
  char* at = strstr(line, "cliffs=");
  if (!at) return;
  only = at + strlen("cliffs=");
  at[strcspn(at, " \n")] = 0;
}

int main(int argc, char** argv) {
  int in_guest = getpid() == 1;
  if (in_guest) start_guest();
  if (argc > 1 && !in_guest) only = argv[1];
  console_open(in_guest);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) console_line("CLIFF-ERROR cannot pin to a CPU");
  arena = get_memory(4 << 20, PROT_READ | PROT_WRITE | PROT_EXEC);
  buffer = get_memory(8 << 20, PROT_READ | PROT_WRITE);
  memset(buffer, 1, 8 << 20);
  console_line("CLIFF-READY");
  run_apart("places", places);
  run_apart("rep", strings);
  run_apart("insn", instructions);
  run_apart("call", calls);
  run_apart("change", changes);
  run_apart("kernel", kernel);
  run_apart("far", far_branches);
  console_line("CLIFF-DONE");
  if (in_guest) reboot(RB_POWER_OFF);
  return 0;
}
