// One test: a short sequence of instructions and the state it starts from, both made from a seed.
#pragma once

#include <string>
#include <vector>

#include "fuzz/forms.h"
#include "fuzz/state.h"

namespace trapline::fuzz {

struct Item {
  enum class Fix : u8 { none, branch, rip };  // what layout() has to write into the bytes
  std::array<u8, 16> bytes{};
  u8 length = 0;
  Fix fix = Fix::none;
  u8 fix_offset = 0, fix_bytes = 0;
  u64 target = 0;  // rip: an address; branch: index of the item to go to (forward)
  std::size_t extension = 0;
};

struct Program {
  u64 seed = 0;
  std::vector<Item> items;
  Snapshot initial;
};

// Deterministic in (forms, seed, extent).
void make_program(const Forms& forms, u64 seed, const Extent& extent, Program& out);

// The code at `address`, INT3 at its end. At most place::slot bytes. offsets[i]: where item i starts.
std::vector<u8> layout(const std::vector<Item>& items, u64 address, std::vector<u64>* offsets = nullptr);
inline constexpr std::size_t kMaxItems = 20;

// "10000000: 48 01 d8    add rax, rbx" per line.
std::string listing(const std::vector<Item>& items, u64 address);

// Registers and memory (initial.cpp). Pointer registers first, so that instructions can be aimed.
void make_initial(Rng& rng, const Extent& extent, Snapshot& out);
// Registers that hold pointers into the window; instructions mostly leave them alone. rsp points into the stack.
constexpr bool is_pointer(unsigned gpr) { return gpr == 3 || (gpr >= 5 && gpr <= 7) || (gpr >= 12 && gpr <= 14); }
inline constexpr u8 kPointers[] = {3, 5, 6, 7, 12, 13, 14};
inline constexpr u8 kSmallIndex = 15;  // holds 0..15

}  // namespace trapline::fuzz
