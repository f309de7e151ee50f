// What an engine is told when it is made. All of it but the counting is for tests and for finding faults.
#pragma once

#include <string>
#include <string_view>

#include "base/addr.h"
#include "base/result.h"
#include "base/types.h"

namespace trapline::cage {
class Pool;
}

namespace trapline::engine {

// TRAPLINE_DEBUG=WORD,...: what translated code does without, to find out what is wrong.
struct DebugOptions {
  bool no_gs_base = false;     // nogs: tables by a base in memory, as on hosts without FSGSBASE
  bool no_pext = false;        // nopext: page numbers by shifts, as on hosts where PEXT is microcode
  bool no_links = false;       // nolink: every branch between blocks looks its target up
  bool no_sharing = false;     // nosharing: a look-up for every access
  bool no_jump_cache = false;  // nojumps: every branch that is no link is C++'s
  bool no_moving = false;      // nomove: the same code elsewhere is translated anew
  bool no_vectors = false;     // novector: vector instructions are calls
  bool no_x87 = false;         // nox87: x87 instructions are calls
  bool no_inline = false;      // noinline: sensitive and complex instructions are calls
  bool no_thunks = false;      // nothunks: no short ways beside calls (strings, page ends)
  bool direct_always = false;  // direct: user code runs in cages from its first instruction on, whatever it costs
  static constexpr u32 kMostInsns = 48;
  u32 max_block = kMostInsns;  // max-block=N: instructions of a block, 1 to 48

  // Error: names the word that is none.
  static Result<DebugOptions, std::string> parse(std::string_view text);
};

// For tests of --verify: the instruction at this guest address is translated wrongly, or its page is looked up wrongly.
struct Miscompile {
  enum class How : u8 {
    none,
    value,  // another immediate (its last byte)
    place,  // another displacement
    drop,   // no code at all
    reach,  // the page at the address, once looked up, is reached in every mode for reading and writing
    stale,  // what is looked up of that page is forgotten by INVLPG only
  };
  Gva address;
  How how = How::none;
  // "ADDRESS,HOW" with one of these words; anything else is none.
  static Miscompile parse(const char* text);
};

// What an engine may use of the VM's cages (cage/pool.h): every `parts`-th, from `part` on.
struct CageShare {
  cage::Pool* pool = nullptr;  // null: none
  unsigned part = 0, parts = 1;
};

struct EngineOptions {
  // Translated code counts the instructions that retire: needed for --clock instructions, budgets, --stats and
  // debuggers. Without it cpu.retired counts only what was interpreted.
  bool count_instructions = true;
  // Entries of an interpreted block before it is translated; at least 1.
  u32 hot_threshold = 32;
  // Bytes of what describes one vCPU's translations, beside their code: a guest of one-instruction blocks gets little
  // code and many of these. Beyond it everything is translated anew.
  u64 most_records = 96 * MiB;
  // --dump: each translated block goes to the trace, as guest code, host code, or both side by side.
  bool dump_guest = false, dump_host = false;
  // --verify: told of the first difference, does not return. Null: not verified.
  void (*on_difference)(const std::string& report) = nullptr;
  CageShare cages = {};
  // Kernel code's sensitive instructions become traps: HLT, a fault in ring 3, and the interpreter's after the signal. Else
  // they are done in line or called.
  bool traps = false;
  DebugOptions debug = {};
  Miscompile miscompile = {};
};

}  // namespace trapline::engine
