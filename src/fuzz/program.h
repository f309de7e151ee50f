// One test: a short sequence of instructions and the state it starts from, both made from a seed.
#pragma once

#include <optional>
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
  u8 group = 0;  // items of one group, if not 0, belong together: the minimizer drops all or none
};

struct Program {
  u64 seed = 0;
  isa::CodeSize size = isa::CodeSize::bits64;
  std::vector<Item> items;
  Snapshot initial;
};

// The forms of every code size; those of sizes that the host does not run are not asked for.
class AllForms {
 public:
  const Forms& of(isa::CodeSize size) const;

 private:
  mutable std::optional<Forms> forms_[3];
};

// Deterministic in (forms, seed, extent).
void make_program(const AllForms& forms, u64 seed, const Extent& extent, Program& out);

// The base of the code segment that the program runs in: 16-bit code has one that reaches its slot.
u64 code_base(isa::CodeSize size, std::size_t slot);
constexpr u16 code16_selector(std::size_t slot) {  // in the LDT
  return static_cast<u16>(slot * place::slot / place::segment << 3 | 7);
}
// Its first byte, and where the host stopped, as linear addresses.
inline u64 code_at(std::size_t slot) { return place::code + slot * place::slot; }
inline u64 stopped_at(const Program& program, std::size_t slot, const Outcome& native) {
  return code_base(program.size, slot) + native.state.regs.rip;
}

// The code at `address`, INT3 at its end. At most place::slot bytes. offsets[i]: where item i starts.
std::vector<u8> layout(const std::vector<Item>& items, u64 address, std::vector<u64>* offsets = nullptr);
inline constexpr std::size_t kMaxItems = 20;

// Outside 64-bit code the upper halves of registers are undefined (SDM Vol. 1 3.4.1.1).
void drop_upper_halves(Registers& registers);

// "10000000: 48 01 d8    add rax, rbx" per line.
std::string listing(const Program& program, u64 address);

// Registers and memory (initial.cpp). Pointer registers first, so that instructions can be aimed.
void make_initial(Rng& rng, const Extent& extent, isa::CodeSize size, Snapshot& out);
// Registers that hold pointers into the window; instructions mostly leave them alone. rsp points into the stack.
constexpr bool is_pointer(unsigned gpr) { return gpr == 3 || (gpr >= 5 && gpr <= 7) || (gpr >= 12 && gpr <= 14); }
inline constexpr u8 kPointers[] = {3, 5, 6, 7, 12, 13, 14};
inline constexpr u8 kSmallIndex = 15;  // holds 0..15

}  // namespace trapline::fuzz
