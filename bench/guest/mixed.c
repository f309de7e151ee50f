// Programs that compute, and enter the kernel every so often: what direct execution of user code pays for.
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

// Some microseconds of the machine's own time: calls by pointer and a table, as interpreters do.
typedef uint64_t (*Step)(uint64_t, uint64_t*);
static uint64_t step_add(uint64_t x, uint64_t* cell) { return x + (*cell += x); }
static uint64_t step_mix(uint64_t x, uint64_t* cell) { return (*cell ^= x << 7) ^ x >> 3; }
static uint64_t step_rotate(uint64_t x, uint64_t* cell) { return (x << 11 | x >> 53) + *cell; }
static uint64_t step_multiply(uint64_t x, uint64_t* cell) { return x * 6364136223846793005u + ++*cell; }

static uint64_t compute(uint64_t seed, unsigned microseconds) {
  static const Step steps[4] = {step_add, step_mix, step_rotate, step_multiply};
  static uint64_t cells[1024];
  for (unsigned i = 0; i < microseconds * 160; i++) {
    Step volatile step = steps[seed >> 29 & 3];
    seed = step(seed, &cells[seed >> 17 & 1023]);
  }
  return seed;
}

static uint64_t calls_every(uint64_t n, unsigned microseconds) {
  uint64_t seed = 88172645463325252, same = 0;
  long first = syscall(SYS_getppid);
  for (uint64_t i = 0; i < n; i++) {
    seed = compute(seed, microseconds);
    same += syscall(SYS_getppid) == first;
  }
  return seed + same;
}

static uint64_t calls_1k(uint64_t n) { return calls_every(n, 1000); }
static uint64_t calls_10k(uint64_t n) { return calls_every(n, 100); }
static uint64_t calls_100k(uint64_t n) { return calls_every(n, 10); }
static uint64_t calls_1m(uint64_t n) { return calls_every(n, 1); }

// A page of memory that has never been touched, and ten microseconds of work on it.
static uint64_t touch(uint64_t pages) {
  uint8_t* memory = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  madvise(memory, pages << 12, MADV_NOHUGEPAGE);
  uint64_t seed = 88172645463325252;
  for (uint64_t i = 0; i < pages; i++) {
    seed = compute(seed, 10);
    memory[(i << 12) + (seed & 4095)] = (uint8_t)seed;
  }
  uint64_t sum = 0;
  for (uint64_t i = 0; i < pages << 12; i += 64) sum = mix(sum, memory[i]);
  munmap(memory, pages << 12);
  return sum;
}

// A just-in-time compiler's life: functions are written, run for a while, and overwritten by others.
static uint64_t jit(uint64_t n) {
  uint8_t* code = mmap(0, 1 << 16, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) fail("mmap of code");
  uint64_t sum = 1;
  for (uint64_t i = 0; i < n; i++) {
    uint8_t* at = code + i % 512 * 128;
    // lea rax, [rdi + rdi * 4 + i]; ror rax, 13; dec esi; mov rdi, rax; jnz -17; ret
    const uint8_t text[] = {0x48, 0x8d, 0x84, 0xbf, 0,    0,    0,    0,    0x48, 0xc1,
                            0xc8, 0x0d, 0xff, 0xce, 0x48, 0x89, 0xc7, 0x75, 0xed, 0xc3};
    memcpy(at, text, sizeof text);
    uint32_t number = (uint32_t)i;
    memcpy(at + 4, &number, 4);
    uint64_t (*function)(uint64_t, uint32_t);
    memcpy(&function, &at, sizeof function);
    for (int k = 0; k < 20; k++) sum = function(sum, 500);
  }
  munmap(code, 1 << 16);
  return sum;
}

const Workload mixed_workloads[] = {
    {"calls-1k", calls_1k, 100, 1, 0},
    {"calls-10k", calls_10k, 1000, 1, 0},
    {"calls-100k", calls_100k, 10000, 1, 0},
    {"calls-1m", calls_1m, 100000, 1, 0},
    {"touch", touch, 8000, 1, 0},
    {"jit", jit, 6000, 1, 0},
    {0},
};
