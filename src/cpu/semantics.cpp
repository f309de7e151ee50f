// Mnemonic -> semantic, by isa/traits.inc, for everything in cpu/semantics.h.
#include "cpu/semantics.h"

#include <array>

#include "isa/prefixes.h"

namespace trapline::cpu {

namespace {

using Kind = isa::Operand::Kind;

bool is(const isa::Insn& insn, unsigned operand, Kind kind) {
  return operand < insn.operand_count && insn.op[operand].kind == kind;
}

// A pointer operand, or a memory operand that is a selector wider than a near target.
bool far_target(const isa::Insn& insn) {
  if (is(insn, 0, Kind::far_ptr)) return true;
  return is(insn, 0, Kind::mem) && insn.op[0].bytes != insn.operand_bytes;
}

// The opcode byte behind legacy prefixes and REX; RET has no operand that tells far from near.
u8 opcode(const isa::Insn& insn) {
  for (unsigned i = 0; i < insn.length; i++)
    if (!isa::is_prefix(insn.bytes[i], insn.code_size)) return insn.bytes[i];
  return 0;
}

Semantic find_mov(const isa::Insn& insn) {
  if (is(insn, 0, Kind::cr) || is(insn, 1, Kind::cr)) return sem::mov_cr;
  if (is(insn, 0, Kind::dr) || is(insn, 1, Kind::dr)) return sem::mov_dr;
  if (is(insn, 0, Kind::seg)) return sem::mov_to_seg;
  return is(insn, 1, Kind::seg) ? sem::mov_from_seg : nullptr;
}

Semantic find_far_ret(const isa::Insn& insn) {
  const u8 op = opcode(insn);
  return op == 0xca || op == 0xcb ? sem::far_ret : nullptr;
}

Semantic find_by_operands(const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      return find_mov(insn);
    case ZYDIS_MNEMONIC_PUSH:
      return is(insn, 0, Kind::seg) ? sem::push_seg : nullptr;
    case ZYDIS_MNEMONIC_POP:
      return is(insn, 0, Kind::seg) ? sem::pop_seg : nullptr;
    case ZYDIS_MNEMONIC_CALL:
      return far_target(insn) ? sem::far_call : nullptr;
    case ZYDIS_MNEMONIC_JMP:
      return far_target(insn) ? sem::far_jmp : nullptr;
    case ZYDIS_MNEMONIC_RET:
      return find_far_ret(insn);
    default:
      return nullptr;
  }
}

constexpr auto kSystem = [] {
  std::array<Semantic, ZYDIS_MNEMONIC_MAX_VALUE + 1> table{};
#define NONE nullptr
#define SYSTEM(function) sem::function
#define FPU(function) nullptr
#define BY_OPERANDS nullptr
#define INSN(mnemonic, semantic, ...) table[ZYDIS_MNEMONIC_##mnemonic] = semantic;
#include "isa/traits.inc"
#undef INSN
  return table;
}();

}  // namespace

Semantic find_semantic(const isa::Insn& insn) {
  const Semantic semantic = kSystem[insn.mnemonic];
  return semantic ? semantic : find_by_operands(insn);
}

}  // namespace trapline::cpu
