#include "engine/hostcode/treatment.h"

#include "cpu/fpu_state.h"
#include "engine/semantics/complex.h"
#include "engine/vector/features.h"
#include "engine/vector/op.h"
#include "isa/table.h"
#include "isa/traits.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

namespace {

bool is_bit_test(ZydisMnemonic m) { return isa::traits(m).has(isa::trait::bit_test); }

// May this operand be reached by the look-up?
bool reachable(const isa::Insn& i, const Context& c) {
  const isa::MemOperand& m = i.mem;
  if (m.vsib) return false;
  if (c.bits64) return m.address_bytes >= 4;
  if (m.address_bytes != 4) return false;
  if (m.seg == Seg::fs) return c.fs_flat;
  if (m.seg == Seg::gs) return c.gs_flat;
  return m.seg != Seg::cs;
}

bool has_memory(const isa::Insn& i) {
  for (unsigned n = 0; n < i.operand_count; n++)
    if (i.op[n].kind == Kind::mem) return true;
  return false;
}

bool only_plain_operands(const isa::Insn& i) {
  for (unsigned n = 0; n < i.operand_count; n++) {
    const Kind k = i.op[n].kind;
    if (k != Kind::gpr && k != Kind::mem && k != Kind::imm && k != Kind::other) return false;
  }
  return true;
}

bool power_of_two(unsigned n) { return n && !(n & (n - 1)); }

bool canonical_branch(u64 from, const isa::Insn& i, const Context& c) {
  if (!c.bits64) return true;
  const u64 next = from + i.length;
  return cpu::canonical(next) && cpu::canonical(next + i.imm);
}

}  // namespace

bool in_reach(const isa::Insn& i, const Context& c) { return !has_memory(i) || reachable(i, c); }

bool is_plain(const cpu::Vcpu& cpu, const TranslatedInsn& p, const Context& c) {
  const isa::Insn& i = p.insn;
  if (!isa::traits(i.mnemonic).has(isa::trait::host_same) || !only_plain_operands(i)) return false;
  if (!semantics::offered(cpu, i)) return false;
  const auto& raw = p.raw.insn;
  if (raw.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
      (raw.opcode == 0x82 || (raw.opcode >= 0xA0 && raw.opcode <= 0xA3)))
    return false;
  if (!has_memory(i) || i.mnemonic == ZYDIS_MNEMONIC_LEA)
    return i.mnemonic != ZYDIS_MNEMONIC_LEA || i.address_bytes >= 4;
  if (!reachable(i, c) || !power_of_two(i.mem.bytes) || i.mem.bytes > 16) return false;
  return !is_bit_test(i.mnemonic) || i.op[1].kind == Kind::imm;
}

bool is_accumulator_offset(const TranslatedInsn& p, const Context& c) {
  const auto& raw = p.raw.insn;
  return p.insn.mnemonic == ZYDIS_MNEMONIC_MOV && raw.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
         raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && raw.opcode >= 0xA0 && raw.opcode <= 0xA3 && reachable(p.insn, c);
}

// BT and its kin with a bit number in a register, which leads to any byte (SDM Vol. 2A BT).
bool is_bit_string(const isa::Insn& i, const Context& c) {
  if (!is_bit_test(i.mnemonic) || i.op[0].kind != Kind::mem || i.op[1].kind != Kind::gpr) return false;
  const bool based = i.mem.seg == Seg::fs || i.mem.seg == Seg::gs;  // added after an address of 32 bits is cut
  return reachable(i, c) && !(based && i.mem.address_bytes == 4);
}

bool is_xlat(const isa::Insn& i, const Context& c) {
  return i.mnemonic == ZYDIS_MNEMONIC_XLAT && i.address_bytes == (c.bits64 ? 8 : 4) && i.mem.seg != Seg::fs &&
         i.mem.seg != Seg::gs && i.mem.seg != Seg::cs;
}

// PUSH, POP, LEAVE and ENTER of the stack's own width.
bool is_stack(const TranslatedInsn& p, const Context& c) {
  const isa::Insn& i = p.insn;
  const unsigned width = c.bits64 ? 8 : 4;
  const Kind k = i.op[0].kind;
  if (i.operand_bytes == 2 && k == Kind::gpr && (i.mnemonic == ZYDIS_MNEMONIC_PUSH || i.mnemonic == ZYDIS_MNEMONIC_POP))
    return i.op[0].reg != isa::rsp;
  if (i.operand_bytes != width) return false;
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return k == Kind::gpr || k == Kind::imm || (k == Kind::mem && reachable(i, c) && i.mem.bytes == width);
    case ZYDIS_MNEMONIC_POP:
      return k == Kind::gpr || (k == Kind::mem && reachable(i, c) && i.mem.bytes == width && i.mem.disp < 1 << 30);
    case ZYDIS_MNEMONIC_LEAVE:
      return true;
    case ZYDIS_MNEMONIC_ENTER:  // deeper ones copy the frame pointers of other levels
      return (i.imm2 & 31) <= 1;
    default:
      return false;
  }
}

// The registers named are moved whole: those above 15 by AVX512VL.
bool elements_reachable(const TranslatedInsn& p, const Context& c) {
  const isa::MemOperand& m = p.insn.mem;
  if (m.seg == Seg::fs || m.seg == Seg::gs || (!c.bits64 && m.seg == Seg::cs)) return false;
  if ((p.vector.flags & vector::flag::evex) && !vector::host_has_avx512vl()) return false;
  return m.address_bytes == 4 || (c.bits64 && m.address_bytes == 8);
}

bool bytes_reachable(const isa::Insn& i, const Context& c) {
  if (i.mem.seg == Seg::fs || i.mem.seg == Seg::gs || (!c.bits64 && i.mem.seg == Seg::cs)) return false;
  return i.address_bytes == 4 || (c.bits64 && i.address_bytes == 8);
}

// Of MXCSR: what differs between what a guest may set and what the host lets it is bits above 15 alone.
bool is_mxcsr(const cpu::Vcpu& cpu, const isa::Insn& i, const Context& c, const Ready& ready) {
  if (!reachable(i, c)) return false;
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
      return ready.sse && cpu::mxcsr_mask(cpu) == 0xffff;
    case ZYDIS_MNEMONIC_VLDMXCSR:
      return ready.avx && cpu::mxcsr_mask(cpu) == 0xffff;
    case ZYDIS_MNEMONIC_STMXCSR:
      return ready.sse;
    case ZYDIS_MNEMONIC_VSTMXCSR:
      return ready.avx;
    default:
      return false;
  }
}

// With all exceptions masked, as where x87 code is in line, nothing can be pending for these.
bool is_x87_state(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_EMMS || m == ZYDIS_MNEMONIC_FWAIT; }

bool is_environment(const isa::Insn& i, const Context& c) {
  return (i.mnemonic == ZYDIS_MNEMONIC_FNSTENV || i.mnemonic == ZYDIS_MNEMONIC_FLDENV) && i.mem.bytes == 28 &&
         reachable(i, c);
}

bool is_direction(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_CLD || m == ZYDIS_MNEMONIC_STD; }

// Near branches of the mode's full width. The interpreter has the others.
bool is_branch(TranslatedInsn& p, const Context& c) {
  const isa::Insn& i = p.insn;
  const unsigned width = c.bits64 ? 8 : 4;
  const bool wide = p.raw.insn.operand_width == width * 8 || c.bits64;
  // 66 on a near branch means IP in 32-bit code, and differs between makers in 64-bit code.
  if (p.raw.insn.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) return false;
  const Kind k = i.op[0].kind;
  const u64 from = c.page.raw;  // only the half counts
  if (isa::traits(i.mnemonic).has(isa::trait::conditional)) return wide && canonical_branch(from, i, c);
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:  // F2 and F3 differ between makers
      return p.raw.insn.raw.prefix_count == 0 && canonical_branch(from, i, c);
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
      return i.address_bytes >= 4 && canonical_branch(from, i, c);  // with 67 in 32-bit code it counts CX
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
      p.ends = true;
      if (k == Kind::imm) return canonical_branch(from, i, c);
      if (k == Kind::mem) return reachable(i, c) && i.mem.bytes == width;
      return k == Kind::gpr && !(i.mnemonic == ZYDIS_MNEMONIC_CALL && i.op[0].reg == isa::rsp);
    case ZYDIS_MNEMONIC_RET:
      p.ends = true;
      return i.operand_count == 0 || i.op[0].kind != Kind::imm;
    default:
      return false;
  }
}

// Behind one that does not, inlined x87 code goes on in another block, whose head looks at the control word: it relies on
// that and on FIP.
bool keeps_x87_control(ZydisMnemonic m) { return !isa::traits(m).may_change(isa::change::x87_control); }

bool is_nothing(const TranslatedInsn& p) { return isa::traits(p.insn.mnemonic).has(isa::trait::no_effect); }

}  // namespace trapline::engine::hostcode
