// Two CPUs: independent computation, a cache line handed over by spinning, a contended counter, and sleep and wake-up
// across CPUs.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

typedef struct {
  unsigned cpu;
  uint64_t n, result;
  void (*body)(unsigned cpu, uint64_t n, uint64_t* result);
} Job;

static _Atomic uint32_t arrived;

static void* start(void* argument) {
  Job* job = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(job->cpu, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) fail("needs 2 CPUs");
  atomic_fetch_add(&arrived, 1);
  while (atomic_load(&arrived) < 2) sched_yield();
  job->body(job->cpu, job->n, &job->result);
  return 0;
}

static uint64_t on_both(void (*body)(unsigned, uint64_t, uint64_t*), uint64_t n) {
  Job jobs[2] = {{0, n, 0, body}, {1, n, 0, body}};
  pthread_t other;
  atomic_store(&arrived, 0);
  if (pthread_create(&other, 0, start, &jobs[1]) != 0) fail("pthread_create");
  start(&jobs[0]);
  pthread_join(other, 0);
  return mix(jobs[0].result, jobs[1].result + 1);
}

static void compute(unsigned cpu, uint64_t n, uint64_t* result) {
  uint64_t a = cpu + 1, b = 2;
  for (uint64_t i = 0; i < n; i++) {
    a = (a << 7 | a >> 57) + (b ^ i);
    b = b * 0x9e3779b97f4a7c15u + (a >> 11);
  }
  *result = mix(a, b);
}

static uint64_t compute_one(uint64_t n) {
  uint64_t result;
  compute(0, n, &result);
  return result;
}

static uint64_t compute_two(uint64_t n) { return on_both(compute, n); }

static _Alignas(64) _Atomic uint64_t line;

static void hand_over(unsigned cpu, uint64_t n, uint64_t* result) {
  for (uint64_t i = cpu; i < 2 * n; i += 2) {
    while (atomic_load_explicit(&line, memory_order_acquire) != i) __builtin_ia32_pause();
    atomic_store_explicit(&line, i + 1, memory_order_release);
  }
  *result = n;
}

static uint64_t spin(uint64_t n) {
  atomic_store(&line, 0);
  return on_both(hand_over, n) + atomic_load(&line);
}

static void count(unsigned cpu, uint64_t n, uint64_t* result) {
  (void)cpu;
  for (uint64_t i = 0; i < n; i++) atomic_fetch_add(&line, 3);
  *result = n;
}

static uint64_t counter(uint64_t n) {
  atomic_store(&line, 0);
  return on_both(count, n) + atomic_load(&line);
}

static _Alignas(64) _Atomic uint32_t turn;

static void sleep_and_wake(unsigned cpu, uint64_t n, uint64_t* result) {
  for (uint64_t i = 0; i < n; i++) {
    for (uint32_t seen; (seen = atomic_load(&turn)) != cpu;)
      syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, seen, 0, 0, 0);
    atomic_store(&turn, 1 - cpu);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
  }
  *result = n;
}

static uint64_t wake(uint64_t n) {
  atomic_store(&turn, 0);
  return on_both(sleep_and_wake, n);
}

const Workload smp_workloads[] = {
    {"smp-one", compute_one, 32000000, 2, 0},
    {"smp-two", compute_two, 32000000, 2, 0},
    {"smp-spin", spin, 150000, 2, 0},
    {"smp-counter", counter, 1000000, 2, 0},
    {"smp-wake", wake, 800, 2, 0},
    {0},
};
