// The runner: an ordinary program, and a guest's /init that powers off at the end.
//
//   litmus [trapline.litmus.seconds=20] [trapline.litmus.only=NAME,...]       (a guest takes these from its kernel's
//   command line)
//
//   LITMUS NAME: OUTCOME COUNT, ... [FORBIDDEN]
//   LITMUS end: TESTS tests on CPUS CPUs, N forbidden
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "litmus.h"

static const Test* const tables[] = {ordering_tests, atomic_tests,  futex_tests,
                                     code_tests,     mapping_tests, selector_tests};
static double seconds = 20, share;
static volatile double deadline;
static const char* only;
static const char* volatile running = "nothing";
static uint64_t moves, moves_seen;
static int forbidden_now, failures;

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

unsigned cpus(void) {
  static unsigned count;  // main asks first, so threads only read
  if (count == 0) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    count = n < 1 ? 1 : n > max_threads ? max_threads : (unsigned)n;
  }
  return count;
}

uint64_t random_number(void) {
  static __thread uint64_t state;
  if (state == 0) state = (uint64_t)(uintptr_t)&state * 0x9e3779b97f4a7c15u | 1;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

void set_deadline(double time) { share = time, deadline = 0; }

// The time counts from the first question, which is asked once all threads are there.
int time_left(void) {
  __atomic_fetch_add(&moves, 1, __ATOMIC_RELAXED);
  if (deadline == 0) {
    deadline = now() + share;
    return 1;
  }
  return now() < deadline;
}

typedef struct {
  unsigned number;
  void (*body)(unsigned);
} Start;

static void* start(void* argument) {
  Start* s = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(s->number % cpus(), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  s->body(s->number);
  return 0;
}

void on_threads(unsigned count, void (*body)(unsigned)) {
  pthread_t threads[max_threads];
  Start starts[max_threads];
  for (unsigned i = 0; i < count; i++) {
    starts[i] = (Start){i, body};
    if (pthread_create(&threads[i], 0, start, &starts[i]) != 0) broken("cannot start a thread");
  }
  for (unsigned i = 0; i < count; i++) pthread_join(threads[i], 0);
}

void meet(unsigned count) {
  static struct {
    _Alignas(line_size) unsigned arrived;
    _Alignas(line_size) unsigned phase;
  } place;
  unsigned phase = __atomic_load_n(&place.phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&place.arrived, 1, __ATOMIC_ACQ_REL) == count) {
    place.arrived = 0;
    __atomic_store_n(&place.phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }
  for (unsigned spins = 0; __atomic_load_n(&place.phase, __ATOMIC_ACQUIRE) == phase; spins++) {
    if (spins > 5000 || cpus() < count)
      sched_yield();
    else
      __builtin_ia32_pause();
  }
}

// What the console has taken may still be in the terminal's buffer.
static void power_off(void) {
  tcdrain(1);
  reboot(RB_POWER_OFF);
}

void outcome(const char* what, uint64_t count, int forbidden) {
  if (count == 0) return;
  printf("%s%s %llu%s", forbidden_now < 0 ? " " : ", ", what, (unsigned long long)count, forbidden ? " FORBIDDEN" : "");
  forbidden_now = forbidden || forbidden_now > 0;
}

void skip(const char* why) {
  printf(" skipped: %s", why);
  forbidden_now = 0;
}

_Noreturn void broken(const char* what) {
  printf("\nLITMUS broken: %s: %s\n", running, what);
  fflush(stdout);
  if (getpid() == 1) power_off();
  _exit(3);
}

// Every 30 seconds: has anything moved?
static void on_alarm(int number) {
  (void)number;
  uint64_t current = __atomic_load_n(&moves, __ATOMIC_RELAXED);
  if (current == moves_seen) {
    static const char text[] = "\nLITMUS hang in ";
    if (write(1, text, sizeof text - 1) > 0 && write(1, running, strlen(running)) > 0 && write(1, "\n", 1) > 0) {
    }
    if (getpid() == 1) power_off();
    _exit(4);
  }
  moves_seen = current;
  alarm(30);
}

static int wanted(const char* name) {
  if (!only) return 1;
  size_t length = strlen(name);
  for (const char* at = only; (at = strstr(at, name)) != 0; at++) {
    if ((at == only || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) return 1;
  }
  return 0;
}

static void set_option(const char* word) {
  if (strncmp(word, "trapline.litmus.seconds=", 24) == 0) seconds = atof(word + 24);
  if (strncmp(word, "trapline.litmus.only=", 21) == 0) only = word + 21;
}

static void start_guest(void) {
  static char line[4096];
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, 0);
  mount("sysfs", "/sys", "sysfs", 0, 0);
  mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
  int file = open("/proc/cmdline", O_RDONLY);
  ssize_t n = file < 0 ? 0 : read(file, line, sizeof line - 1);
  line[n > 0 ? n : 0] = 0;
  close(file);
  for (char *state, *word = strtok_r(line, " \n", &state); word; word = strtok_r(0, " \n", &state)) set_option(word);
}

int main(int argc, char** argv) {
  int in_guest = getpid() == 1;
  if (in_guest) start_guest();
  for (int i = 1; i < argc && !in_guest; i++) set_option(argv[i]);
  setvbuf(stdout, 0, _IOLBF, 0);

  if (cpus() == 0) broken("no CPU");
  unsigned count = 0, ran = 0;
  for (unsigned t = 0; t < sizeof tables / sizeof tables[0]; t++)
    for (const Test* test = tables[t]; test->name; test++) count += (unsigned)wanted(test->name);
  signal(SIGALRM, on_alarm);
  alarm(30);
  for (unsigned t = 0; t < sizeof tables / sizeof tables[0]; t++) {
    for (const Test* test = tables[t]; test->name; test++) {
      if (!wanted(test->name)) continue;
      running = test->name;
      printf("LITMUS %s:", test->name);
      fflush(stdout);
      forbidden_now = -1;
      set_deadline(seconds / count);
      test->run(seconds / count);
      if (forbidden_now < 0) printf(" nothing");
      failures += forbidden_now > 0;
      ran++;
      printf("\n");
    }
  }
  printf("LITMUS end: %u tests on %u CPUs, %d forbidden\n", ran, cpus(), failures);
  fflush(stdout);
  if (in_guest) {
    sync();
    power_off();
  }
  return failures ? 1 : ran ? 0 : 2;
}
