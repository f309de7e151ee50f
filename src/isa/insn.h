// One decoded guest instruction, in the compact form that semantics and engines read. Made by isa::decode (Zydis).
#pragma once

#include <Zydis/Zydis.h>

#include <array>

#include "base/types.h"
#include "isa/vendor.h"

namespace trapline::isa {

// What decides how bytes decode: the D/L bits of CS.
enum class CodeSize : u8 { bits16 = 2, bits32 = 4, bits64 = 8 };

enum class Seg : u8 { es, cs, ss, ds, fs, gs, none = 7 };

// Order of the general registers in encodings and in cpu::Vcpu::gpr.
enum Gpr : u8 { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

inline constexpr u8 kNoReg = 0xff;
inline constexpr u8 kRegRip = 16;  // as MemOperand::base only

struct Operand {
  enum class Kind : u8 { none, gpr, mem, imm, far_ptr, seg, cr, dr, vec, mmx, st, mask, bnd, other };
  Kind kind = Kind::none;
  u8 reg = kNoReg;  // register number in its file; for AH, CH, DH, BH: 0..3 with high8 set
  bool high8 = false;
  bool read = false, written = false;
  u16 bytes = 0;  // operand width; 0 where none applies (LEA's address, for one, has none)
};

// seg:[base + index << scale + disp], truncated to address_bytes. RIP-relative: base == kRegRip, disp relative to the
// next instruction.
struct MemOperand {
  Seg seg = Seg::ds;  // the effective segment, defaults and overrides resolved (64-bit mode: ds unless fs/gs; ss for
                      // rsp/rbp bases)
  u8 base = kNoReg, index = kNoReg;
  u8 scale_log2 = 0;
  u8 address_bytes = 8;
  bool vsib = false;  // index is a vector register
  u16 bytes = 0;      // access size
  i64 disp = 0;
};

struct Insn {
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  CodeSize code_size = CodeSize::bits64;
  Vendor vendor = Vendor::intel;  // as which it was decoded
  u8 length = 0;
  u8 operand_bytes = 4;  // effective operand size 1, 2, 4 or 8 (as Zydis' operand_width / 8)
  u8 address_bytes = 8;
  u8 stack_bytes = 8;    // width of the stack pointer in 64-bit mode; elsewhere SS.B decides at run time
  u8 operand_count = 0;  // explicit and implicit-but-visible operands (not hidden ones)
  bool lock = false;
  bool rep = false;  // F3 on an instruction that takes it (REP / REPE)
  bool repne = false;
  // Not plain computation: goes to a semantic in cpu/semantics.h (filled in by the decoder's table).
  bool sensitive = false;
  std::array<Operand, 5> op{};
  MemOperand mem{};
  u64 imm = 0;   // sign-extended where the instruction does so; relative branches: the displacement
  u64 imm2 = 0;  // ENTER's second; far pointers: imm = offset, imm2 = selector
  std::array<u8, 15> bytes{};
};

enum class DecodeStatus : u8 {
  ok,
  truncated,  // more bytes are needed: fetch the next page, or fault
  too_long,   // over 15 bytes: #GP
  invalid,    // #UD
};

// Decodes the instruction at `bytes` (`available` readable, at most 15 are looked at) as `vendor`'s CPUs do. `out` is
// whole only on ok.
DecodeStatus decode(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out);

// "mov rax, qword ptr gs:[0x28]": Intel syntax, for traces and reports. `address` resolves relative operands.
std::size_t format(const Insn& insn, u64 address, char* buffer, std::size_t size);

}  // namespace trapline::isa
