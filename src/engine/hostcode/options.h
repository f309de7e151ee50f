// What the process that runs engines decides for all of them. Set before engines are made.
#pragma once

#include <string>

#include "base/result.h"
#include "base/types.h"

namespace trapline::engine::hostcode {

// Translated code counts the instructions that retire: needed for --clock instructions, budgets, --stats and debuggers.
// Without it cpu.retired counts only what was interpreted.
inline bool count_instructions = true;

// Entries of an interpreted block before it is translated; at least 1. The environment variable TRAPLINE_HOT sets it,
// for tests.
inline unsigned hot_threshold = 32;
unsigned hot_threshold_of_environment();

// Bytes of what describes one vCPU's translations, beside their code: a guest of one-instruction blocks gets little
// code and many of these. Beyond it everything is translated anew. Tests take less.
inline u64 most_records = 96 * MiB;

// TRAPLINE_DEBUG=WORD,...: ways of translated code that are not taken, to find out which of them is wrong.
namespace debug_option {
inline constexpr u32 no_gs_base = 1;  // nogs: tables by a base in memory, as on hosts without FSGSBASE
inline constexpr u32 no_pext = 2;     // nopext: page numbers by shifts, as on hosts where PEXT is microcode
}  // namespace debug_option
inline u32 debug = 0;
// Error: names the word that is none.
Result<u32, std::string> debug_of_environment();

// --dump: each translated block goes to the trace, as guest code, host code, or both side by side.
inline bool dump_guest = false, dump_host = false;

// For tests of --verify: the instruction at this guest address is translated wrongly. The environment variable
// TRAPLINE_MISCOMPILE=ADDRESS,HOW sets it, where HOW is value, place or drop.
struct Miscompile {
  enum class How : u8 {
    none,
    value,  // another immediate (its last byte)
    place,  // another displacement
    drop,   // no code at all
  };
  u64 address = 0;
  How how = How::none;
};
inline Miscompile miscompile;
Miscompile miscompile_of_environment();

}  // namespace trapline::engine::hostcode
