// Integer computation: arithmetic, branches, calls, indirect jumps, sorting, hashing.
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static uint64_t alu(uint64_t n) {
  uint64_t a = 1, b = 2, c = 3;
  for (uint64_t i = 0; i < n; i++) {
    a = (a << 7 | a >> 57) + (b ^ i);
    b = b * 0x9e3779b97f4a7c15u + (a >> 11);
    c += (a & b) - (c >> 3);
  }
  return mix(mix(a, b), c);
}

static uint64_t divide(uint64_t n) {
  uint64_t sum = 0, x = 0x123456789abcdefu;
  for (uint64_t i = 1; i <= n; i++) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    sum += x / (i | 1) + x % (i + 7);
  }
  return sum;
}

// Unpredictable branches: the steps of Collatz sequences.
static uint64_t branches(uint64_t n) {
  uint64_t steps = 0;
  for (uint64_t i = 1; i <= n; i++) {
    for (uint64_t x = i; x != 1; steps++) {
      if (x & 1)
        x = 3 * x + 1;
      else
        x >>= 1;
    }
  }
  return steps;
}

__attribute__((noinline)) static uint64_t fibonacci(uint64_t n) {
  uint64_t sum = 0;
  __asm__ volatile("" : "+r"(n));  // every call stays a call
  if (n < 2) return n;
  sum += fibonacci(n - 1);
  return sum + fibonacci(n - 2);
}

static uint64_t calls(uint64_t n) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) sum = mix(sum, fibonacci(20));
  return sum;
}

// A threaded bytecode machine: an indirect jump for each operation.
static uint64_t dispatch(uint64_t n) {
  static void* const labels[8] = {&&add, &&sub, &&xor_, &&rotate, &&multiply, &&swap, &&load, &&store};
  static uint8_t program[4096];
  uint64_t seed = 42, a = 1, b = 2, memory[16] = {0};
  for (unsigned i = 0; i < sizeof program; i++) program[i] = next_random(&seed) >> 61;
  uint64_t pc = 0;
#define NEXT             \
  if (pc == n) goto end; \
  goto* labels[program[pc++ % sizeof program]]
  NEXT;
add:
  a += b;
  NEXT;
sub:
  b -= a;
  NEXT;
xor_:
  a ^= pc;
  NEXT;
rotate:
  b = b << 13 | b >> 51;
  NEXT;
multiply:
  a *= 0x2545f4914f6cdd1du;
  NEXT;
swap : {
  uint64_t t = a;
  a = b;
  b = t;
}
  NEXT;
load:
  a += memory[b & 15];
  NEXT;
store:
  memory[a & 15] = b;
  NEXT;
#undef NEXT
end:
  return mix(a, b);
}

static int compare(const void* a, const void* b) {
  uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
  return (x > y) - (x < y);
}

static uint64_t sort(uint64_t n) {
  enum { count = 1 << 16 };
  static uint32_t values[count];
  uint64_t sum = 0, seed = 7;
  for (uint64_t i = 0; i < n; i++) {
    for (unsigned k = 0; k < count; k++) values[k] = (uint32_t)next_random(&seed);
    qsort(values, count, sizeof values[0], compare);
    for (unsigned k = 0; k < count; k += 97) sum = mix(sum, values[k]);
  }
  return sum;
}

// FNV-1a over short strings, and a table with open addressing.
static uint64_t hash(uint64_t n) {
  enum { slots = 1 << 14 };
  static struct { uint64_t key, count; } table[slots];
  memset(table, 0, sizeof table);
  uint64_t seed = 99, probes = 0;
  for (uint64_t i = 0; i < n; i++) {
    char word[16];
    uint64_t r = next_random(&seed) % (slots / 2);
    unsigned length = 0;
    do word[length++] = (char)('a' + r % 26);
    while ((r /= 26) != 0);
    uint64_t h = 0xcbf29ce484222325u;
    for (unsigned k = 0; k < length; k++) h = (h ^ (uint8_t)word[k]) * 0x100000001b3u;
    h |= 1;
    unsigned slot = (unsigned)(h >> 40) % slots;
    while (table[slot].key != 0 && table[slot].key != h) slot = (slot + 1) % slots, probes++;
    table[slot].key = h;
    table[slot].count++;
  }
  uint64_t sum = probes;
  for (unsigned i = 0; i < slots; i++) sum = mix(sum, table[i].key + table[i].count);
  return sum;
}

const Workload cpu_workloads[] = {
    {"alu", alu, 16000000, 1, 0},          {"divide", divide, 6000000, 1, 0},
    {"branches", branches, 100000, 1, 0},  {"calls", calls, 2200, 1, 0},
    {"dispatch", dispatch, 8000000, 1, 0}, {"sort-array", sort, 8, 1, 0},
    {"hash", hash, 2000000, 1, 0},         {0},
};
