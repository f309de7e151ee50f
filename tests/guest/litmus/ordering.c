// Orders of plain loads and stores, and of fences and locked instructions between them. The names are those of the
// literature.
//
// Each round, every thread goes through the same row of instances, whose variables lie on lines of their own; it keeps
// pace with the others within bounds, so that accesses meet. Then the outcomes are counted.
#include <stdio.h>
#include <string.h>

#include "litmus.h"

enum { instances = 256, patience = 60 };

typedef struct {
  _Alignas(line_size) uint32_t x;
  _Alignas(line_size) uint32_t y;
  _Alignas(line_size) uint32_t r[4];  // what was read
} Instance;

typedef struct {
  const char* name;
  unsigned threads;
  void (*body[4])(Instance* i);
  const char* (*judge)(const Instance* i);  // name of the outcome of interest, or null
  int forbidden;                            // x86 does not allow that outcome
} Litmus;

static Instance row[instances];
static struct { _Alignas(line_size) uint32_t at; } progress[4];
static const Litmus* current;
static volatile uint64_t seen, all;
static const char* what;

static void keep_pace(unsigned thread, uint32_t at) {
  PLAIN_STORE(progress[thread].at, at);
  if (cpus() < 2) return;
  for (unsigned other = 0; other < current->threads; other++)
    for (int n = 0; n < patience && PLAIN_LOAD(progress[other].at) < at; n++) __builtin_ia32_pause();
  for (uint64_t n = random_number() % 8; n > 0; n--) __asm__ volatile("nop");
}

static void take_stock(void) {
  for (unsigned i = 0; i < instances; i++) {
    const char* name = current->judge(&row[i]);
    if (name) what = name, seen++;
    all++;
  }
}

static void thread_body(unsigned thread) {
  static volatile int more;
  for (;;) {
    if (thread == 0) {
      memset(row, 0, sizeof row);
      memset(progress, 0, sizeof progress);
      more = time_left();
    }
    meet(current->threads);
    if (!more) return;
    for (unsigned i = 0; i < instances; i++) {
      keep_pace(thread, i + 1);
      current->body[thread](&row[i]);
    }
    meet(current->threads);
    if (thread == 0) take_stock();
  }
}

static void run(const Litmus* litmus) {
  current = litmus, seen = all = 0, what = 0;
  on_threads(litmus->threads, thread_body);
  outcome("instances", all, 0);
  if (seen) outcome(what, seen, litmus->forbidden);
}

static void mfence(void) { __asm__ volatile("mfence" ::: "memory"); }
static void locked_add(void) { __asm__ volatile("lock; addl $0, -64(%%rsp)" ::: "memory", "cc"); }
static void exchange(uint32_t* at, uint32_t value) {
  __asm__ volatile("xchg %0, %1" : "+r"(value), "+m"(*at)::"memory");
}

#define BODY(name, ...) \
  static void name(Instance* i) { __VA_ARGS__; }
#define JUDGE(name, condition, text) \
  static const char* name(const Instance* i) { return (condition) ? text : 0; }

// SB: each stores one variable and loads the other's. The store buffer lets both loads come first, a fence does not.
BODY(sb0, PLAIN_STORE(i->x, 1); i->r[0] = PLAIN_LOAD(i->y))
BODY(sb1, PLAIN_STORE(i->y, 1); i->r[1] = PLAIN_LOAD(i->x))
BODY(sb0_mfence, PLAIN_STORE(i->x, 1); mfence(); i->r[0] = PLAIN_LOAD(i->y))
BODY(sb1_mfence, PLAIN_STORE(i->y, 1); mfence(); i->r[1] = PLAIN_LOAD(i->x))
BODY(sb0_lock, PLAIN_STORE(i->x, 1); locked_add(); i->r[0] = PLAIN_LOAD(i->y))
BODY(sb1_lock, PLAIN_STORE(i->y, 1); locked_add(); i->r[1] = PLAIN_LOAD(i->x))
BODY(sb0_xchg, exchange(&i->x, 1); i->r[0] = PLAIN_LOAD(i->y))
BODY(sb1_xchg, exchange(&i->y, 1); i->r[1] = PLAIN_LOAD(i->x))
JUDGE(sb, i->r[0] == 0 && i->r[1] == 0, "both loads before both stores")
static const Litmus litmus_sb = {"SB", 2, {sb0, sb1}, sb, 0};
static const Litmus litmus_sb_mfence = {"SB+mfence", 2, {sb0_mfence, sb1_mfence}, sb, 1};
static const Litmus litmus_sb_lock = {"SB+lock", 2, {sb0_lock, sb1_lock}, sb, 1};
static const Litmus litmus_sb_xchg = {"SB+xchg", 2, {sb0_xchg, sb1_xchg}, sb, 1};

// MP: stores are seen in order, loads happen in order.
BODY(mp0, PLAIN_STORE(i->x, 1); PLAIN_STORE(i->y, 1))
BODY(mp1, i->r[0] = PLAIN_LOAD(i->y); i->r[1] = PLAIN_LOAD(i->x))
JUDGE(mp, i->r[0] == 1 && i->r[1] == 0, "the second store seen, not the first")
static const Litmus litmus_mp = {"MP", 2, {mp0, mp1}, mp, 1};

// LB: no store before an older load.
BODY(lb0, i->r[0] = PLAIN_LOAD(i->x); PLAIN_STORE(i->y, 1))
BODY(lb1, i->r[1] = PLAIN_LOAD(i->y); PLAIN_STORE(i->x, 1))
JUDGE(lb, i->r[0] == 1 && i->r[1] == 1, "both loads after both stores")
static const Litmus litmus_lb = {"LB", 2, {lb0, lb1}, lb, 1};

// IRIW: two readers agree on the order of two writers' stores.
BODY(iriw0, PLAIN_STORE(i->x, 1))
BODY(iriw1, PLAIN_STORE(i->y, 1))
BODY(iriw2, i->r[0] = PLAIN_LOAD(i->x); i->r[1] = PLAIN_LOAD(i->y))
BODY(iriw3, i->r[2] = PLAIN_LOAD(i->y); i->r[3] = PLAIN_LOAD(i->x))
JUDGE(iriw, i->r[0] == 1 && i->r[1] == 0 && i->r[2] == 1 && i->r[3] == 0, "the readers disagree")
static const Litmus litmus_iriw = {"IRIW", 4, {iriw0, iriw1, iriw2, iriw3}, iriw, 1};

// WRC: who reads a store and then stores has made the first one visible too.
BODY(wrc1, i->r[0] = PLAIN_LOAD(i->x); PLAIN_STORE(i->y, 1))
BODY(wrc2, i->r[1] = PLAIN_LOAD(i->y); i->r[2] = PLAIN_LOAD(i->x))
JUDGE(wrc, i->r[0] == 1 && i->r[1] == 1 && i->r[2] == 0, "cause unseen, effect seen")
static const Litmus litmus_wrc = {"WRC", 3, {iriw0, wrc1, wrc2}, wrc, 1};

// 2+2W: both writers' first stores cannot both be last.
BODY(w0, PLAIN_STORE(i->x, 1); PLAIN_STORE(i->y, 2))
BODY(w1, PLAIN_STORE(i->y, 1); PLAIN_STORE(i->x, 2))
JUDGE(two_writes, i->x == 1 && i->y == 1, "both first stores are last")
static const Litmus litmus_2w = {"2+2W", 2, {w0, w1}, two_writes, 1};

// S: a store cannot overtake the load before it.
BODY(s0, PLAIN_STORE(i->x, 2); PLAIN_STORE(i->y, 1))
BODY(s1, i->r[0] = PLAIN_LOAD(i->y); PLAIN_STORE(i->x, 1))
JUDGE(s, i->r[0] == 1 && i->x == 2, "the later store is overwritten by the earlier")
static const Litmus litmus_s = {"S", 2, {s0, s1}, s, 1};

// R: as SB with a store in place of a load.
BODY(r0, PLAIN_STORE(i->x, 1); PLAIN_STORE(i->y, 1))
BODY(r1, PLAIN_STORE(i->y, 2); i->r[0] = PLAIN_LOAD(i->x))
BODY(r1_mfence, PLAIN_STORE(i->y, 2); mfence(); i->r[0] = PLAIN_LOAD(i->x))
JUDGE(r, i->y == 2 && i->r[0] == 0, "the load before the older store")
static const Litmus litmus_r = {"R", 2, {r0, r1}, r, 0};
static const Litmus litmus_r_mfence = {"R+mfence", 2, {r0, r1_mfence}, r, 1};

// Coherence: one order of the stores to a variable, and everyone sees it so.
BODY(corr1, i->r[0] = PLAIN_LOAD(i->x); i->r[1] = PLAIN_LOAD(i->x))
JUDGE(corr, i->r[0] == 1 && i->r[1] == 0, "a variable goes back")
static const Litmus litmus_corr = {"CoRR", 2, {iriw0, corr1}, corr, 1};
BODY(coww0, PLAIN_STORE(i->x, 1); i->r[0] = PLAIN_LOAD(i->x))
BODY(coww1, PLAIN_STORE(i->x, 2); i->r[1] = PLAIN_LOAD(i->x))
JUDGE(coww, (i->r[0] == 2 && i->r[1] == 1) || i->r[0] == 0 || i->r[1] == 0, "two orders of two stores")
static const Litmus litmus_cowr = {"CoWR", 2, {coww0, coww1}, coww, 1};

// n6: a store is forwarded to its own thread's load before others see it.
BODY(n60, PLAIN_STORE(i->x, 1); i->r[0] = PLAIN_LOAD(i->x); i->r[1] = PLAIN_LOAD(i->y))
BODY(n61, PLAIN_STORE(i->y, 2); PLAIN_STORE(i->x, 2))
JUDGE(n6, i->r[0] == 1 && i->r[1] == 0 && i->x == 1, "forwarded from the store buffer")
static const Litmus litmus_n6 = {"n6", 2, {n60, n61}, n6, 0};

#define TEST(litmus) \
  static void run_##litmus(double seconds) { (void)seconds, run(&litmus); }
TEST(litmus_sb)
TEST(litmus_sb_mfence)
TEST(litmus_sb_lock)
TEST(litmus_sb_xchg)
TEST(litmus_mp)
TEST(litmus_lb)
TEST(litmus_iriw)
TEST(litmus_wrc)
TEST(litmus_2w)
TEST(litmus_s)
TEST(litmus_r)
TEST(litmus_r_mfence)
TEST(litmus_corr)
TEST(litmus_cowr)
TEST(litmus_n6)

const Test ordering_tests[] = {{"SB", run_litmus_sb},
                               {"SB+mfence", run_litmus_sb_mfence},
                               {"SB+lock", run_litmus_sb_lock},
                               {"SB+xchg", run_litmus_sb_xchg},
                               {"MP", run_litmus_mp},
                               {"LB", run_litmus_lb},
                               {"IRIW", run_litmus_iriw},
                               {"WRC", run_litmus_wrc},
                               {"2+2W", run_litmus_2w},
                               {"S", run_litmus_s},
                               {"R", run_litmus_r},
                               {"R+mfence", run_litmus_r_mfence},
                               {"CoRR", run_litmus_corr},
                               {"CoWR", run_litmus_cowr},
                               {"n6", run_litmus_n6},
                               {0}};
