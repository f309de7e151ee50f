// The guest's workloads: what a workload is, and what they share. Each returns a checksum of what it computed, which is
// the same on every machine; the harness fails a run whose checksums differ.
#pragma once

#include <stdint.h>
#include <time.h>

typedef struct {
  const char* name;
  uint64_t (*run)(uint64_t n);
  uint64_t n;       // iterations at --scale 1: 20 to 100 ms natively
  unsigned cpus;    // the runner pins to this many CPUs
  const char* cpu;  // feature it needs, as __builtin_cpu_supports names it, or null
} Workload;

typedef struct {
  const char* name;
  const char* argv[24];
  const char* input;   // file of its standard input, or null
  const char* output;  // file whose bytes count for the checksum beside standard output, or null
} Program;

extern const Workload cpu_workloads[], memory_workloads[], float_workloads[], kernel_workloads[], mixed_workloads[], smp_workloads[],
    port_workloads[];
extern const Program programs[];

// Directories: `scratch` is a tmpfs, `helpers` holds the programs that exec workloads start.
extern const char* scratch;
extern const char* helpers;

// Ends the workload's process with this reason on the console.
_Noreturn void fail(const char* what);

// Inputs of the programs, made in `directory` once per boot.
void make_inputs(const char* directory, double scale);
// Replaces this process by the program; its standard output goes to `directory`/out.
_Noreturn void exec_program(const Program* program, const char* directory);

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}

static inline uint64_t next_random(uint64_t* state) {  // xorshift64*: Vigna 2016
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1du;
}
