// The differential tester: random instruction sequences run on the host CPU (in a sandboxed child process) and in an
// engine, and every register, flag, byte of memory and fault compared. What `trapline fuzz` does.
//
// Sequence.  A sequence of 1 to kMaxItems instructions (program.h) for 64-bit ring 3, and the state it starts from.
// Both are a
//            function of one 64-bit seed, the forms (forms.cpp) and the host's vector features: the same seed is the
//            same sequence on every host with the same features, for as long as src/fuzz/ does not change.
// Rerun.     A difference is printed with `again: trapline fuzz --engine=E --seed=N`. Without --sequences that command
//            runs on after N, and it stops at N because `differences` is 1. Sequence k of a run stands in slot
//            k % place::batch of the code pages (state.h), so one that depends on its place is found by starting at an
//            earlier seed.
// Minimize.  Instructions are dropped, last first, until each one left is needed for a difference; it need not be the
//            same difference. The initial state stays that of the seed.
// Engines.   Any of engine/registry.h, and "auto" for its first. Nothing here names one: a row there is all that a new
//            engine needs. The engine gets one vCPU (guest.h) and is driven by Engine::run alone.
#pragma once

#include <cstdio>
#include <string>

#include "base/result.h"
#include "base/types.h"

namespace trapline::fuzz {

struct FuzzOptions {
  std::string engine = "interpret";  // as engine::find_engine knows it
  u64 seed = 0;                      // of the first sequence; the k-th after it has seed + k, modulo 2^64
  bool seed_given = false;           // else one below 2^32 is drawn and printed
  bool uncounted = false;            // translated code that does not count its instructions, as `trapline run` makes it
  u64 count = 10'000'000;   // stop when this many instructions have retired on the host; 0: after one sequence.
                            // Checked between sequences, so up to one sequence more may retire
  u64 sequences = 0;        // if not 0: stop after this many sequences, and `count` means nothing
  unsigned bits = 0;        // sequences of 16-, 32- or 64-bit code alone; 0: of every size that the host's kernel runs
  bool minimize = false;    // shorten every differing sequence, in slot 0
  u32 differences = 1;      // stop after this many differing sequences; 0 is as 1
  bool verbose = false;     // print every sequence before it runs
  std::FILE* out = stdout;  // progress every 10 s, reports, the summary; never closed here
};

// The exit codes of `trapline fuzz`.
enum FuzzResult : int {
  no_difference = 0,
  difference = 1,  // printed
  cannot_run = 2,
};

// Error, one line: an unknown engine, or what the host refuses. Call it on a process's only thread, once at a time: it forks
// the child that runs sequences, and takes SIGSEGV, SIGBUS, SIGILL, SIGABRT and the vector unit's signals meanwhile.
// If the engine crashes, the process dies of that signal and its last line on standard error is the rerun command.
Result<FuzzResult, std::string> run_fuzz(const FuzzOptions& options);

}  // namespace trapline::fuzz
