// Sleep and wake-up: a mutex of three states on a futex (Drepper 2005), and a ring between producers and consumers. A
// lost wake-up is a hang, which the watchdog reports.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "litmus.h"

enum { threads = 4, slots = 8, turns = 200 };

static uint32_t mutex;
static volatile uint64_t guarded, done[threads];
static volatile uint64_t ring[slots], produced, consumed, sum_in, sum_out;
static uint32_t changed;
static volatile int stop;

static void wait_on(uint32_t* at, uint32_t value) { syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, 0, 0, 0); }
static void wake(uint32_t* at, int count) { syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, count, 0, 0, 0); }

static void lock(void) {
  uint32_t state = 0;
  if (__atomic_compare_exchange_n(&mutex, &state, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return;
  while (__atomic_exchange_n(&mutex, 2, __ATOMIC_ACQUIRE) != 0) wait_on(&mutex, 2);
}

static void unlock(void) {
  if (__atomic_exchange_n(&mutex, 0, __ATOMIC_RELEASE) == 2) wake(&mutex, 1);
}

static void mutex_body(unsigned thread) {
  while (time_left()) {
    for (unsigned n = 0; n < turns; n++) {
      lock();
      guarded++;
      for (uint64_t k = random_number() % 32; k > 0; k--) __builtin_ia32_pause();
      unlock();
      done[thread]++;
    }
  }
}

static void mutexes(double seconds) {
  (void)seconds;
  uint64_t n = 0;
  guarded = mutex = 0;
  for (unsigned i = 0; i < threads; i++) done[i] = 0;
  on_threads(threads, mutex_body);
  for (unsigned i = 0; i < threads; i++) n += done[i];
  outcome("turns", n, 0);
  outcome("mutex lets two in", guarded != n, 1);
}

// Waits, with the mutex released, until something has changed.
static void wait_for_change(void) {
  uint32_t before = __atomic_load_n(&changed, __ATOMIC_SEQ_CST);
  unlock();
  wait_on(&changed, before);
  lock();
}

static void announce(void) {
  __atomic_fetch_add(&changed, 1, __ATOMIC_SEQ_CST);
  wake(&changed, threads);
}

static void ring_body(unsigned thread) {
  int producer = thread % 2 == 0;
  for (;;) {
    if (thread == 0 && !time_left()) {
      lock();
      stop = 1;
      announce();
      unlock();
    }
    lock();
    if (producer) {
      while (!stop && produced - consumed == slots) wait_for_change();
      if (stop) break;
      sum_in += ring[produced % slots] = random_number();
      produced++;
    } else {
      while (!stop && produced == consumed) wait_for_change();
      if (produced == consumed) break;
      sum_out += ring[consumed % slots];
      consumed++;
    }
    announce();
    unlock();
  }
  unlock();
}

static void rings(double seconds) {
  (void)seconds;
  produced = consumed = sum_in = sum_out = mutex = 0;
  stop = 0;
  on_threads(threads, ring_body);
  outcome("items", consumed, 0);
  outcome("items lost or doubled", produced != consumed || sum_in != sum_out, 1);
}

const Test futex_tests[] = {{"mutex", mutexes}, {"ring", rings}, {0}};
