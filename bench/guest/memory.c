// Memory: latency, copies, string instructions.
#include <stdlib.h>
#include <string.h>

#include "bench.h"

// A random cycle through 16 MiB: each load's address is the value of the load before.
static uint64_t chase(uint64_t n) {
  enum { count = 1 << 18, stride = 8 };  // a link in each 64-byte line
  uint64_t(*links)[stride] = aligned_alloc(64, sizeof(uint64_t[count][stride]));
  if (!links) fail("no memory");
  for (uint64_t i = 0; i < count; i++) links[i][0] = i;
  uint64_t seed = 5;
  for (uint64_t i = count - 1; i > 0; i--) {  // Sattolo: one cycle
    uint64_t k = next_random(&seed) % i, t = links[i][0];
    links[i][0] = links[k][0];
    links[k][0] = t;
  }
  uint64_t at = 0;
  for (uint64_t i = 0; i < n; i++) at = links[at][0];
  free(links);
  return at;
}

// The C library's memcpy, at sizes from 64 bytes to 1 MiB.
static uint64_t copy(uint64_t n) {
  enum { size = 1 << 20 };
  uint8_t *from = malloc(size), *to = malloc(size);
  if (!from || !to) fail("no memory");
  for (unsigned i = 0; i < size; i++) from[i] = (uint8_t)(i * 31), to[i] = 0;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    for (unsigned length = 64; length <= size; length *= 4) {
      for (unsigned at = 0; at + length <= size && at < 64 * length; at += length) {
        memcpy(to + at, from + at, length);
        __asm__ volatile("" ::"r"(to) : "memory");
      }
    }
    from[i % size]++;
    sum = mix(sum, to[(i * 4099) % size]);
  }
  free(from);
  free(to);
  return sum;
}

// REP MOVS, STOS, SCAS and CMPS, as memcpy in a kernel and strlen in old code use them.
static uint64_t strings(uint64_t n) {
  enum { size = 4096 };
  static uint8_t a[size], b[size];
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    void *d = a, *s;
    uint64_t c = size / 8;
    __asm__ volatile("rep stosq" : "+D"(d), "+c"(c) : "a"(i) : "memory");
    d = b, s = a, c = size - i % 8;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
    b[200 + i % 32] ^= 0x80;
    d = b, s = a, c = 256;
    __asm__ volatile("repe cmpsb" : "+D"(d), "+S"(s), "+c"(c) : : "memory", "cc");
    sum = mix(sum, c);
    a[200 + i % 64] = 0xa5;
    d = a, c = 300;
    __asm__ volatile("repne scasb" : "+D"(d), "+c"(c) : "a"(0xa5) : "memory", "cc");
    sum = mix(sum, c);
  }
  return sum;
}

const Workload memory_workloads[] = {
    {"chase", chase, 500000, 1, 0}, {"copy", copy, 80, 1, 0}, {"strings", strings, 100000, 1, 0}, {0}};
