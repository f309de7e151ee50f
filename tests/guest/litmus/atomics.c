// Locked instructions from all CPUs on the same memory: nothing is lost, nothing is torn.
#include <sched.h>
#include <string.h>

#include "litmus.h"

enum { threads = 4, batch = 2000 };

static _Alignas(line_size) union {
  uint8_t bytes[64];
  uint16_t words[32];
  uint32_t dwords[16];
  uint64_t qwords[8];
  unsigned __int128 wide;
} shared;
static uint64_t done[threads], torn[threads];
static volatile int more;

// Runs body in batches until the time is over; `done` counts what each thread did.
static void (*batch_body)(unsigned thread);

static void loop(unsigned thread) {
  do {
    if (thread == 0) more = time_left();
    meet(threads);
    if (!more) return;
    batch_body(thread);
    meet(threads);
  } while (1);
}

static uint64_t run(void (*body)(unsigned)) {
  memset(&shared, 0, sizeof shared);
  memset(done, 0, sizeof done);
  memset(torn, 0, sizeof torn);
  batch_body = body;
  on_threads(threads, loop);
  uint64_t sum = 0;
  for (unsigned i = 0; i < threads; i++) sum += done[i];
  return sum;
}

static uint64_t all_torn(void) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < threads; i++) sum += torn[i];
  return sum;
}

// Counters of every width in one line: each thread adds one to each of them.
static void count(unsigned thread) {
  for (unsigned n = 0; n < batch; n++) {
    uint32_t one = 1;
    uint64_t old, new;
    __asm__ volatile("lock; incb %0" : "+m"(shared.bytes[0])::"cc");
    __asm__ volatile("lock; addw $1, %0" : "+m"(shared.words[1])::"cc");
    __asm__ volatile("lock; xaddl %0, %1" : "+r"(one), "+m"(shared.dwords[1])::"cc");
    __asm__ volatile("lock; subq $-1, %0" : "+m"(shared.qwords[1])::"cc");
    old = PLAIN_LOAD(shared.qwords[2]);
    do new = old + 1;
    while (!__atomic_compare_exchange_n(&shared.qwords[2], &old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  }
  done[thread] += batch;
}

static void counters(double seconds) {
  (void)seconds;
  uint64_t n = run(count), wrong = 0;
  wrong += shared.bytes[0] != (uint8_t)n;
  wrong += shared.words[1] != (uint16_t)n;
  wrong += shared.dwords[1] != (uint32_t)n;
  wrong += shared.qwords[1] != n;
  wrong += shared.qwords[2] != n;
  outcome("rounds", n, 0);
  outcome("counters that lost or gained", wrong, 1);
}

// CMPXCHG16B on two words that are always n and ~n; and plain 8-byte loads see no half of it.
static void exchange_wide(unsigned thread) {
  for (unsigned n = 0; n < batch; n++) {
    uint64_t low = PLAIN_LOAD(shared.qwords[0]), high = ~low;
    uint8_t good;
    __asm__ volatile("lock; cmpxchg16b %1; sete %0"
                     : "=q"(good), "+m"(shared.wide), "+a"(low), "+d"(high)
                     : "b"(low + 1), "c"(~(low + 1))
                     : "cc");
    if (good)
      done[thread]++;
    else if (high != ~low)
      torn[thread]++;
  }
}

static void wide(double seconds) {
  (void)seconds;
  memset(&shared, 0, sizeof shared);
  uint64_t n = 0;
  // run() clears; the pair starts as 0 and ~0.
  memset(done, 0, sizeof done);
  memset(torn, 0, sizeof torn);
  shared.qwords[1] = ~0ull;
  batch_body = exchange_wide;
  on_threads(threads, loop);
  for (unsigned i = 0; i < threads; i++) n += done[i];
  outcome("exchanges", n, 0);
  outcome("torn pairs", all_torn(), 1);
  outcome("lost exchanges", n != shared.qwords[0] || shared.qwords[1] != ~n, 1);
}

// Bit locks (LOCK BTS, BTR) around plain counters, and a ticket lock.
static volatile uint64_t guarded[2];

static void lock_and_count(unsigned thread) {
  for (unsigned n = 0; n < batch / 8; n++) {
    uint8_t taken;
    unsigned spins = 0;
    for (;;) {
      __asm__ volatile("lock; btsq $17, %1; setc %0" : "=q"(taken), "+m"(shared.qwords[0])::"cc", "memory");
      if (!taken) break;
      if (++spins > 100 || cpus() < 2)
        sched_yield();
      else
        __builtin_ia32_pause();
    }
    guarded[0]++;
    __asm__ volatile("lock; btrq $17, %0" : "+m"(shared.qwords[0])::"cc", "memory");
    uint32_t ticket = __atomic_fetch_add(&shared.dwords[4], 1, __ATOMIC_SEQ_CST);
    for (spins = 0; __atomic_load_n(&shared.dwords[5], __ATOMIC_ACQUIRE) != ticket; spins++) {
      if (spins > 100 || cpus() < 2)
        sched_yield();
      else
        __builtin_ia32_pause();
    }
    guarded[1]++;
    PLAIN_STORE(shared.dwords[5], ticket + 1);
  }
  done[thread] += batch / 8;
}

static void locks(double seconds) {
  (void)seconds;
  guarded[0] = guarded[1] = 0;
  uint64_t n = run(lock_and_count);
  outcome("turns", n, 0);
  outcome("locks that let two in", (guarded[0] != n) + (guarded[1] != n), 1);
}

// Dekker's entry protocol: needs the fence between the store of one's flag and the load of the other's. Threads 0 and 1
// only.
static struct { _Alignas(line_size) uint32_t wants; } flags[2];

static void dekker_body(unsigned thread) {
  if (thread > 1) return;
  for (unsigned n = 0; n < batch; n++) {
    PLAIN_STORE(flags[thread].wants, 1);
    __asm__ volatile("mfence" ::: "memory");
    if (!PLAIN_LOAD(flags[1 - thread].wants)) {
      guarded[0]++;
      done[thread]++;
    }
    PLAIN_STORE(flags[thread].wants, 0);
  }
}

static void dekker(double seconds) {
  (void)seconds;
  guarded[0] = 0;
  uint64_t n = run(dekker_body);
  outcome("entries", n, 0);
  outcome("lost counts", guarded[0] != n ? n - guarded[0] : 0, 1);
}

// A sequence lock: one writer, readers that retry. Right on TSO without any fence.
static void sequence_body(unsigned thread) {
  for (unsigned n = 0; n < batch; n++) {
    uint64_t s = PLAIN_LOAD(shared.qwords[0]);
    if (thread == 0) {
      PLAIN_STORE(shared.qwords[0], s + 1);
      for (unsigned i = 1; i < 8; i++) PLAIN_STORE(shared.qwords[i], (s + 2) * i);
      PLAIN_STORE(shared.qwords[0], s + 2);
      done[0]++;
      continue;
    }
    uint64_t copy[8];
    for (unsigned i = 1; i < 8; i++) copy[i] = PLAIN_LOAD(shared.qwords[i]);
    if ((s & 1) || PLAIN_LOAD(shared.qwords[0]) != s) continue;
    done[thread]++;
    for (unsigned i = 1; i < 8; i++) torn[thread] += copy[i] != s * i;
  }
}

static void sequence_lock(double seconds) {
  (void)seconds;
  outcome("reads and writes", run(sequence_body), 0);
  outcome("torn reads", all_torn(), 1);
}

const Test atomic_tests[] = {{"counters", counters}, {"cmpxchg16b", wide},       {"locks", locks},
                             {"dekker", dekker},     {"seqlock", sequence_lock}, {0}};
