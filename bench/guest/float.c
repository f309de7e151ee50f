// Floating point: matrix products with scalar SSE2, AVX2 and FMA, an n-body simulation, and the x87 unit.
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "bench.h"

enum { side = 96 };
static double left[side][side], right[side][side], product[side][side];

static void fill(void) {
  uint64_t seed = 11;
  for (unsigned i = 0; i < side; i++) {
    for (unsigned k = 0; k < side; k++) {
      left[i][k] = (double)(next_random(&seed) >> 40) * 0x1p-24 - 0.5;
      right[i][k] = (double)(next_random(&seed) >> 40) * 0x1p-24 - 0.5;
      product[i][k] = 0;
    }
  }
}

static uint64_t fold(const void* data, unsigned size) {
  uint64_t sum = 0;
  for (unsigned i = 0; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, (const char*)data + i, 8);
    sum = mix(sum, word);
  }
  return sum;
}

static uint64_t matrix_sse(uint64_t n) {
  fill();
  for (uint64_t r = 0; r < n; r++) {
    for (unsigned i = 0; i < side; i++) {
      for (unsigned k = 0; k < side; k++) {
        double sum = product[i][k] * 0.125;
        for (unsigned j = 0; j < side; j++) sum += left[i][j] * right[j][k];
        product[i][k] = sum;
      }
    }
  }
  return fold(product, sizeof product);
}

__attribute__((target("avx2"))) static uint64_t matrix_avx2(uint64_t n) {
  fill();
  const __m256d eighth = _mm256_set1_pd(0.125);
  for (uint64_t r = 0; r < n; r++) {
    for (unsigned i = 0; i < side; i++) {
      for (unsigned k = 0; k < side; k += 4) {
        __m256d sum = _mm256_mul_pd(_mm256_loadu_pd(&product[i][k]), eighth);
        for (unsigned j = 0; j < side; j++)
          sum = _mm256_add_pd(sum, _mm256_mul_pd(_mm256_broadcast_sd(&left[i][j]), _mm256_loadu_pd(&right[j][k])));
        _mm256_storeu_pd(&product[i][k], sum);
      }
    }
  }
  return fold(product, sizeof product);
}

__attribute__((target("avx2,fma"))) static uint64_t matrix_fma(uint64_t n) {
  fill();
  const __m256d eighth = _mm256_set1_pd(0.125);
  for (uint64_t r = 0; r < n; r++) {
    for (unsigned i = 0; i < side; i++) {
      for (unsigned k = 0; k < side; k += 4) {
        __m256d sum = _mm256_mul_pd(_mm256_loadu_pd(&product[i][k]), eighth);
        for (unsigned j = 0; j < side; j++)
          sum = _mm256_fmadd_pd(_mm256_broadcast_sd(&left[i][j]), _mm256_loadu_pd(&right[j][k]), sum);
        _mm256_storeu_pd(&product[i][k], sum);
      }
    }
  }
  return fold(product, sizeof product);
}

// Five bodies under gravity, one step of explicit Euler after the other.
static uint64_t nbody(uint64_t n) {
  struct Body {
    double x[3], v[3], mass;
  } bodies[5];
  uint64_t seed = 3;
  for (unsigned i = 0; i < 5; i++) {
    for (unsigned k = 0; k < 3; k++) {
      bodies[i].x[k] = (double)(next_random(&seed) >> 40) * 0x1p-20 - 8;
      bodies[i].v[k] = (double)(next_random(&seed) >> 40) * 0x1p-26;
    }
    bodies[i].mass = 1 + i * 0.25;
  }
  const double dt = 0.001;
  for (uint64_t step = 0; step < n; step++) {
    for (unsigned i = 0; i < 5; i++) {
      for (unsigned j = i + 1; j < 5; j++) {
        double d[3], square = 0.01;
        for (unsigned k = 0; k < 3; k++) {
          d[k] = bodies[i].x[k] - bodies[j].x[k];
          square += d[k] * d[k];
        }
        double pull = dt / (square * sqrt(square));
        for (unsigned k = 0; k < 3; k++) {
          bodies[i].v[k] -= d[k] * bodies[j].mass * pull;
          bodies[j].v[k] += d[k] * bodies[i].mass * pull;
        }
      }
    }
    for (unsigned i = 0; i < 5; i++)
      for (unsigned k = 0; k < 3; k++) bodies[i].x[k] += dt * bodies[i].v[k];
  }
  return fold(bodies, sizeof bodies);
}

// Arithmetic in 80 bits; the result is folded as a double, since the padding of a long double has no value.
static uint64_t x87(uint64_t n) {
  long double sum = 0, x = 1.5L, y = 0.25L;
  for (uint64_t i = 1; i <= n; i++) {
    x = x * 0.999L + y / (long double)i;
    y = y * 1.0001L - x * 0.0003L;
    sum += x * y + sqrtl(x * x + 1.0L);
  }
  double results[3] = {(double)x, (double)y, (double)sum};
  return fold(results, sizeof results);
}

const Workload float_workloads[] = {
    {"matrix-sse", matrix_sse, 30, 1, 0},
    {"matrix-avx2", matrix_avx2, 100, 1, "avx2"},
    {"matrix-fma", matrix_fma, 16, 1, "fma"},
    {"nbody", nbody, 200000, 1, 0},
    {"x87", x87, 1600000, 1, 0},
    {0},
};
