// What a kernel does for its programs: system calls, page faults, processes, signals, pipes, futexes, small files.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static uint64_t parent_id(uint64_t n) {
  long first = syscall(SYS_getppid), same = 0;
  for (uint64_t i = 0; i < n; i++) same += syscall(SYS_getppid) == first;
  return (uint64_t)same;
}

static uint64_t read_write(uint64_t n) {
  int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
  if (zero < 0 || null < 0) fail("no /dev/zero or /dev/null");
  uint64_t bytes = 0;
  char c = 1;
  for (uint64_t i = 0; i < n; i++) {
    bytes += (uint64_t)read(zero, &c, 1);
    bytes += (uint64_t)write(null, &c, 1);
  }
  close(zero);
  close(null);
  return bytes + (uint64_t)c;
}

// A byte there and back between two processes on one CPU.
static uint64_t pipes(uint64_t n) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) fail("pipe");
  pid_t child = fork();
  if (child < 0) fail("fork");
  uint8_t byte = 0;
  if (child == 0) {
    for (uint64_t i = 0; i < n; i++) {
      if (read(there[0], &byte, 1) != 1) _exit(1);
      byte = (uint8_t)(byte * 5 + 1);
      if (write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("pipe");
    sum = mix(sum, byte);
  }
  waitpid(child, 0, 0);
  return sum;
}

static int wait_status(pid_t child) {
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) fail("a child did not exit");
  return WEXITSTATUS(status);
}

static uint64_t forks(uint64_t n) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    pid_t child = fork();
    if (child == 0) _exit((int)(i & 127));
    sum += (uint64_t)wait_status(child);
  }
  return sum;
}

static uint64_t exec(const char* name, uint64_t n) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", helpers, name);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    char number[8];
    snprintf(number, sizeof number, "%d", (int)(i & 63));
    char* argv[] = {path, number, 0};
    char* environment[] = {0};
    pid_t child = fork();
    if (child == 0) {
      execve(path, argv, environment);
      _exit(127);
    }
    int status = wait_status(child);
    if (status == 127) fail("cannot start the helper program");
    sum = mix(sum, (uint64_t)status);
  }
  return sum;
}
static uint64_t exec_static(uint64_t n) { return exec("nothing-static", n); }
static uint64_t exec_dynamic(uint64_t n) { return exec("nothing-dynamic", n); }

static uint64_t map_touch(uint64_t n) {
  enum { pages = 64 };
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    volatile uint8_t* p = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) fail("mmap");
    for (unsigned k = 0; k < pages; k++) p[k * 4096] = (uint8_t)(i + k);
    for (unsigned k = 0; k < pages; k++) sum += p[k * 4096];
    munmap((void*)p, pages * 4096);
  }
  return sum;
}

static volatile uint64_t signals_seen;
static void on_signal(int number) { signals_seen += (uint64_t)number; }

static uint64_t signals(uint64_t n) {
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, 0);
  pid_t self = getpid();
  for (uint64_t i = 0; i < n; i++) kill(self, SIGUSR1);
  return signals_seen;
}

static _Atomic uint32_t turn;

static void take_turns(uint32_t mine, uint64_t n) {
  for (uint64_t i = 0; i < n; i++) {
    for (uint32_t seen; (seen = atomic_load(&turn)) != mine;)
      syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, seen, 0, 0, 0);
    atomic_store(&turn, 1 - mine);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
  }
}

static void* second_player(void* n) {
  take_turns(1, *(uint64_t*)n);
  return 0;
}

static uint64_t futexes(uint64_t n) {
  pthread_t other;
  atomic_store(&turn, 0);
  if (pthread_create(&other, 0, second_player, &n) != 0) fail("pthread_create");
  take_turns(0, n);
  pthread_join(other, 0);
  return n + atomic_load(&turn);
}

static uint64_t small_files(uint64_t n) {
  char path[512];
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/file-%u", scratch, (unsigned)(i % 64));
    int file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (file < 0 || write(file, path, i % 32) != (ssize_t)(i % 32)) fail("cannot write in the scratch directory");
    close(file);
    struct stat status;
    if (stat(path, &status) != 0) fail("stat");
    sum = mix(sum, (uint64_t)status.st_size);
    if (unlink(path) != 0) fail("unlink");
  }
  return sum;
}

// Sleeps: the harness watches what the hypervisor uses meanwhile.
static uint64_t idle(uint64_t seconds) {
  struct timespec left = {(time_t)seconds, 0};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
  return 0;
}

const Workload kernel_workloads[] = {
    {"getppid", parent_id, 500000, 1, 0},
    {"read-write", read_write, 100000, 1, 0},
    {"pipe", pipes, 12000, 1, 0},
    {"fork", forks, 250, 1, 0},
    {"exec-static", exec_static, 60, 1, 0},
    {"exec-dynamic", exec_dynamic, 60, 1, 0},
    {"mmap", map_touch, 600, 1, 0},
    {"signals", signals, 40000, 1, 0},
    {"futex", futexes, 12000, 1, 0},
    {"small-files", small_files, 10000, 1, 0},
    {"idle", idle, 10, 1, 0},
    {0},
};
