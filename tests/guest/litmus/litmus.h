// Tests of what several CPUs see of each other. Each runs for its share of the time on threads of its own, counts
// outcomes, and says which of them x86 forbids (TSO: Intel SDM Vol. 3, 8.2; Owens, Sarkar and Sewell 2009). The same
// program on the host CPU is the oracle.
#pragma once

#include <stdint.h>

enum { max_threads = 16, line_size = 64 };

typedef struct {
  const char* name;
  void (*run)(double seconds);
} Test;

extern const Test ordering_tests[], atomic_tests[], futex_tests[], code_tests[], mapping_tests[], selector_tests[];

unsigned cpus(void);
double now(void);
// A quick random number; each thread has its own sequence.
uint64_t random_number(void);

// Runs body(0) .. body(count - 1), each on a thread pinned to CPU number % cpus(), and waits for all.
void on_threads(unsigned count, void (*body)(unsigned thread));
// All `count` threads of a test meet here.
void meet(unsigned count);

// True until the test's time is over. Also tells the watchdog that something moves.
int time_left(void);
void set_deadline(double seconds);

// Adds to the running test's outcomes. `forbidden` outcomes make the run fail.
void outcome(const char* what, uint64_t count, int forbidden);
// The machine could not run the test.
void skip(const char* why);
_Noreturn void broken(const char* what);

#define PLAIN_STORE(variable, value)                          \
  do {                                                        \
    __asm__ volatile("" ::: "memory");                        \
    __atomic_store_n(&(variable), (value), __ATOMIC_RELAXED); \
    __asm__ volatile("" ::: "memory");                        \
  } while (0)
#define PLAIN_LOAD(variable)                                                      \
  __extension__({                                                                 \
    __asm__ volatile("" ::: "memory");                                            \
    __typeof__(variable) value_ = __atomic_load_n(&(variable), __ATOMIC_RELAXED); \
    __asm__ volatile("" ::: "memory");                                            \
    value_;                                                                       \
  })
