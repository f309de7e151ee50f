// The mapping that the verifier shares with its child, and the code around the instruction.
#pragma once

#include "isa/verify/run.h"

namespace trapline::isa::verify {

// At fixed offsets: generated code names them by absolute address.
struct Shared {
  enum State : u32 { silent = 0, executed = 1, signalled = 2, refused = 3 };
  Registers in, out;
  volatile u32 state = silent;
  i32 signal = 0, code = 0;
  u32 arch = 0;
  u64 trap = 0, error = 0, address = 0;
  char reason[64] = {};
};

class Arena {
 public:
  static Arena& instance();
  bool ok() const { return base_ != nullptr; }
  u8* code() { return base_; }
  Shared& shared() { return *reinterpret_cast<Shared*>(base_ + kPage); }
  u8* scratch() { return base_ + 2 * kPage; }
  u64* stack() { return reinterpret_cast<u64*>(base_ + 3 * kPage + kPage / 2); }  // what RSP points to at entry
  static u32 low(const void* p) { return static_cast<u32>(reinterpret_cast<u64>(p)); }

 private:
  Arena();
  u8* base_ = nullptr;
};

// Offset of the instruction in the code page, the same for all.
inline constexpr u32 kInstructionAt = 512;

// Writes entry, instruction and exit into the (still writable) code page. The entry is called as void().
void assemble(Arena& arena, const Stage& stage);

// Bytes between the instruction and the first byte of 64-bit code behind it: none, or a far jump.
std::size_t exit_jump_length(CodeSize size);

// Selector of a 16-bit code segment over the code page, in the LDT; 0: refused. Per process.
u16 install_16bit_segment(Arena& arena);

}  // namespace trapline::isa::verify
