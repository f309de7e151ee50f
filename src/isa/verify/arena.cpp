#include "isa/verify/arena.h"

#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace trapline::isa::verify {

namespace {

constexpr u16 kLdtSelector = 0x7;  // entry 0 of the LDT, RPL 3

class Assembler {
 public:
  explicit Assembler(u8* at) : at_{at} {}
  void bytes(std::initializer_list<u8> list) {
    for (u8 b : list) *at_++ = b;
  }
  void imm32(u32 value) { std::memcpy(at_, &value, 4), at_ += 4; }
  u8* here() const { return at_; }

  // mov r64, [address] (0x8b) or mov [address], r64 (0x89): absolute, by a SIB byte without base and index.
  void move(u8 opcode, u8 reg, const void* address) {
    bytes({static_cast<u8>(0x48 | (reg >> 3 & 1) << 2), opcode, static_cast<u8>(0x04 | (reg & 7) << 3), 0x25});
    imm32(Arena::low(address));
  }
  void push_imm32(u32 value) { bytes({0x68}), imm32(value); }

 private:
  u8* at_;
};

// Flags and registers, the stack last; then a far return where the instruction is not 64-bit code.
void assemble_entry(Arena& arena, const Stage& stage, u16 selector) {
  Assembler a{arena.code()};
  Shared& shared = arena.shared();
  if (stage.size != CodeSize::bits64)  // 64-bit processes leave DS and ES null: mov eax, 0x2b; mov ds, eax; mov es, eax
    a.bytes({0xb8, 0x2b, 0x00, 0x00, 0x00, 0x8e, 0xd8, 0x8e, 0xc0});
  a.bytes({0xff, 0x34, 0x25}), a.imm32(Arena::low(&shared.in.flags));  // push qword [flags]
  a.bytes({0x9d});                                                     // popfq
  for (u8 reg = 0; reg < 16; reg++)
    if (reg != rsp) a.move(0x8b, reg, &shared.in.gpr[reg]);
  a.move(0x8b, rsp, &shared.in.gpr[rsp]);
  if (stage.size == CodeSize::bits64) {
    a.bytes({0xe9}), a.imm32(Arena::low(arena.code() + kInstructionAt) - Arena::low(a.here() + 4));
    return;
  }
  a.push_imm32(selector);
  a.push_imm32(stage.size == CodeSize::bits16 ? kInstructionAt : Arena::low(arena.code() + kInstructionAt));
  a.bytes({0x48, 0xcb});  // retfq
}

// Stores registers and flags, reports, and ends the process without trusting anything that a segment base leads to.
void assemble_exit(Arena& arena, u8* at) {
  Assembler a{at};
  Shared& shared = arena.shared();
  for (u8 reg = 0; reg < 16; reg++) a.move(0x89, reg, &shared.out.gpr[reg]);
  a.bytes({0x48, 0xc7, 0xc4}), a.imm32(Arena::low(arena.stack()) - 1024);     // mov rsp, below what is reported
  a.bytes({0x9c, 0x8f, 0x04, 0x25}), a.imm32(Arena::low(&shared.out.flags));  // pushfq; pop qword [flags]
  a.bytes({0xc7, 0x04, 0x25}), a.imm32(Arena::low(const_cast<const u32*>(&shared.state))), a.imm32(Shared::executed);
  a.bytes({0xb8}), a.imm32(SYS_exit_group);  // mov eax, exit_group
  a.bytes({0x31, 0xff, 0x0f, 0x05});         // xor edi, edi; syscall
}

}  // namespace

Arena::Arena() {
  void* at = ::mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (at != MAP_FAILED) base_ = static_cast<u8*>(at);
}

Arena& Arena::instance() {
  static Arena arena;
  return arena;
}

std::size_t exit_jump_length(CodeSize size) { return size == CodeSize::bits64 ? 0 : size == CodeSize::bits32 ? 7 : 8; }

void assemble(Arena& arena, const Stage& stage) {
  std::memset(arena.code(), 0xf4, kPage);  // HLT: a stray jump ends in a signal
  assemble_entry(arena, stage, code_selector(stage.size));
  u8* instruction = arena.code() + kInstructionAt;
  std::memcpy(instruction, stage.code.data(), stage.length);
  Assembler a{instruction + stage.length};
  u8* exit = instruction + stage.length + exit_jump_length(stage.size);
  if (stage.size == CodeSize::bits16) a.bytes({0x66});
  if (stage.size != CodeSize::bits64) a.bytes({0xea}), a.imm32(Arena::low(exit)), a.bytes({0x33, 0x00});
  assemble_exit(arena, exit);
}

u16 install_16bit_segment(Arena& arena) {
  user_desc entry{};
  entry.entry_number = 0;
  entry.base_addr = Arena::low(arena.code());
  entry.limit = kPage - 1;
  entry.contents = MODIFY_LDT_CONTENTS_CODE;
  return ::syscall(SYS_modify_ldt, 1, &entry, sizeof entry) == 0 ? kLdtSelector : u16{0};
}

}  // namespace trapline::isa::verify
