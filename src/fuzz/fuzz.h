// The differential tester: random instruction sequences run on the host CPU (in a sandboxed child process) and in an
// engine, and every register, flag, byte of memory and fault compared. What `trapline fuzz` does.
#pragma once

#include <cstdio>
#include <string>

#include "base/types.h"

namespace trapline::fuzz {

struct FuzzOptions {
  std::string engine = "interpret";  // others are refused by name until they exist
  u64 seed = 0;                      // of the first sequence; the k-th after it has seed + k
  bool seed_given = false;           // else one is drawn; it is printed
  u64 count = 10'000'000;            // stop after this many instructions
  u64 sequences = 0;                 // or, if not 0, after this many sequences
  bool minimize = false;             // drop instructions from a failing sequence while it still fails
  u32 differences = 1;               // stop after this many differing sequences
  bool verbose = false;              // print every sequence before it runs
  std::FILE* out = stdout;           // progress and reports
};

// 0: no difference. 1: a difference was printed. 2: cannot run here (engine, host); the reason was printed on `out`.
int run_fuzz(const FuzzOptions& options);

}  // namespace trapline::fuzz
