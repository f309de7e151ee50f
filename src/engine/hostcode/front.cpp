#include "engine/hostcode/front.h"

#include "cpu/fpu.h"
#include "engine/common/executed_scan.h"
#include "engine/interpret/build.h"
#include "engine/interpret/complex.h"
#include "engine/vector/op.h"
#include "isa/table.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

namespace {

// Computation on general registers and memory that is the same instruction on the host.
bool stays_itself(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_MULX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_SETB:
    case ZYDIS_MNEMONIC_SETBE:
    case ZYDIS_MNEMONIC_SETL:
    case ZYDIS_MNEMONIC_SETLE:
    case ZYDIS_MNEMONIC_SETNB:
    case ZYDIS_MNEMONIC_SETNBE:
    case ZYDIS_MNEMONIC_SETNL:
    case ZYDIS_MNEMONIC_SETNLE:
    case ZYDIS_MNEMONIC_SETNO:
    case ZYDIS_MNEMONIC_SETNP:
    case ZYDIS_MNEMONIC_SETNS:
    case ZYDIS_MNEMONIC_SETNZ:
    case ZYDIS_MNEMONIC_SETO:
    case ZYDIS_MNEMONIC_SETP:
    case ZYDIS_MNEMONIC_SETS:
    case ZYDIS_MNEMONIC_SETZ:
    case ZYDIS_MNEMONIC_CMOVB:
    case ZYDIS_MNEMONIC_CMOVBE:
    case ZYDIS_MNEMONIC_CMOVL:
    case ZYDIS_MNEMONIC_CMOVLE:
    case ZYDIS_MNEMONIC_CMOVNB:
    case ZYDIS_MNEMONIC_CMOVNBE:
    case ZYDIS_MNEMONIC_CMOVNL:
    case ZYDIS_MNEMONIC_CMOVNLE:
    case ZYDIS_MNEMONIC_CMOVNO:
    case ZYDIS_MNEMONIC_CMOVNP:
    case ZYDIS_MNEMONIC_CMOVNS:
    case ZYDIS_MNEMONIC_CMOVNZ:
    case ZYDIS_MNEMONIC_CMOVO:
    case ZYDIS_MNEMONIC_CMOVP:
    case ZYDIS_MNEMONIC_CMOVS:
    case ZYDIS_MNEMONIC_CMOVZ:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
      return true;
    default:
      return false;
  }
}

bool is_bit_test(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
}

// Does the instruction table let it run as it is? What the table does not know is innocuous.
bool copied(const isa::Insn& i, bool ring0) {
  const isa::Row* row = isa::classify(i);
  return !row || (ring0 ? row->ring0 : row->ring3).translate == isa::Lowering::copied;
}

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

bool is_plain(const cpu::Vcpu& cpu, const TranslatedInsn& p, const Context& c) {
  const isa::Insn& i = p.insn;
  if (!stays_itself(i.mnemonic) || !only_plain_operands(i)) return false;
  if (!interpret::offered(cpu, i)) return false;
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

// PUSH, POP and LEAVE of the stack's own width.
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
    default:
      return false;
  }
}

// Sensitive instructions whose effect is a few moves.
bool is_inlined(const TranslatedInsn& p, const Context& c) {
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_PAUSE) return !c.counted;
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_MOV)  // of a selector
    return p.insn.op[1].kind == Kind::seg && p.insn.op[0].kind == Kind::gpr && p.insn.op[0].bytes >= 4;
  if (!c.bits64) return false;
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_SWAPGS:
      return c.ring0;
    case ZYDIS_MNEMONIC_PUSHFQ:
      return p.insn.operand_bytes == 8;
    default:
      return false;
  }
}

bool is_direction(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_CLD || m == ZYDIS_MNEMONIC_STD; }

bool is_conditional(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_JB:
    case ZYDIS_MNEMONIC_JBE:
    case ZYDIS_MNEMONIC_JL:
    case ZYDIS_MNEMONIC_JLE:
    case ZYDIS_MNEMONIC_JNB:
    case ZYDIS_MNEMONIC_JNBE:
    case ZYDIS_MNEMONIC_JNL:
    case ZYDIS_MNEMONIC_JNLE:
    case ZYDIS_MNEMONIC_JNO:
    case ZYDIS_MNEMONIC_JNP:
    case ZYDIS_MNEMONIC_JNS:
    case ZYDIS_MNEMONIC_JNZ:
    case ZYDIS_MNEMONIC_JO:
    case ZYDIS_MNEMONIC_JP:
    case ZYDIS_MNEMONIC_JS:
    case ZYDIS_MNEMONIC_JZ:
      return true;
    default:
      return false;
  }
}

bool canonical_branch(u64 from, const isa::Insn& i, const Context& c) {
  if (!c.bits64) return true;
  const u64 next = from + i.length;
  return cpu::canonical(next) && cpu::canonical(next + i.imm);
}

// Near branches of the mode's full width. The interpreter has the others.
bool is_branch(TranslatedInsn& p, const Context& c) {
  const isa::Insn& i = p.insn;
  const unsigned width = c.bits64 ? 8 : 4;
  const bool wide = p.raw.insn.operand_width == width * 8 || c.bits64;
  // 66 on a near branch means IP in 32-bit code, and differs between makers in 64-bit code.
  if (p.raw.insn.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) return false;
  const Kind k = i.op[0].kind;
  const u64 from = c.page;  // only the half counts
  if (is_conditional(i.mnemonic)) return wide && canonical_branch(from, i, c);
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

// x87 state instructions after which inlined x87 code may go on: they change neither the control word nor FIP.
bool keeps_x87_control(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
      return false;
    default:
      return true;
  }
}

// What follows sees memory with other rights (SMAP): look-ups of this block are in the view that it was entered with.
bool changes_view(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_STAC || m == ZYDIS_MNEMONIC_CLAC; }

// A port access changes nothing that a block is made for. What it makes wait (an interrupt, a budget) call_out sees.
bool accesses_port(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_IN || m == ZYDIS_MNEMONIC_OUT; }

bool is_nothing(const TranslatedInsn& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool Front::classify_vector(const cpu::Vcpu& cpu, const Ready& ready, TranslatedInsn& p) {
  using VectorKind = engine::vector::Kind;
  if (unit_.describe(cpu, p.raw, p.vector) != Prepared::yes) return false;
  p.treatment = Treatment::unit;
  const auto kind = static_cast<VectorKind>(p.vector.kind);
  if (kind == VectorKind::nothing) {
    p.treatment = Treatment::nothing;
    return true;
  }
  if (p.vector.flags & engine::vector::flag::x87) {
    // With FDP updated on exceptions alone, and those masked, FDP is nothing to keep; elsewhere it is the operand's
    // address, if no segment base is part of that (lower.cpp).
    const bool pointers_kept = !(p.vector.flags & engine::vector::flag::pointers) ||
                               (p.vector.flags & engine::vector::flag::fdp_on_exception_only) ||
                               p.vector.mem_bytes == 0 || (p.insn.mem.seg != Seg::fs && p.insn.mem.seg != Seg::gs);
    const auto unit = static_cast<cpu::Unit>(p.vector.unit);
    const bool plain = kind == VectorKind::reg || kind == VectorKind::load || kind == VectorKind::store;
    if (ready.x87 && pointers_kept && plain && (unit == cpu::Unit::x87 || unit == cpu::Unit::mmx) &&
        !(p.vector.flags & engine::vector::flag::mxcsr))
      p.treatment = Treatment::x87;
    return true;
  }
  switch (static_cast<cpu::Unit>(p.vector.unit)) {
    case cpu::Unit::sse:
      if (!ready.sse) return true;
      break;
    case cpu::Unit::avx:
      if (!ready.avx) return true;
      break;
    case cpu::Unit::avx512:
      if (!ready.avx512) return true;
      break;
    case cpu::Unit::none:
      break;
    default:
      return true;
  }
  switch (kind) {
    case VectorKind::gather:
    case VectorKind::scatter:
    case VectorKind::mask_move:
    case VectorKind::compress:
    case VectorKind::expand:
      return true;
    default:
      break;
  }
  for (u8 i = 0; i < p.raw.insn.operand_count; i++)  // PCMPESTRI and kin: RCX as a result
    if (p.raw.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && p.raw.op[i].encoding == ZYDIS_OPERAND_ENCODING_NONE &&
        ZydisRegisterGetClass(p.raw.op[i].reg.value) != ZYDIS_REGCLASS_XMM &&
        ZydisRegisterGetClass(p.raw.op[i].reg.value) != ZYDIS_REGCLASS_FLAGS)
      return true;
  p.treatment = Treatment::vector;
  return true;
}

void Front::classify(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, TranslatedInsn& p, bool* full) {
  const isa::Insn& i = p.insn;
  if (isa::never_offered(p.raw)) {
    p.treatment = Treatment::step;
    p.ends = true;
    return;
  }
  if (const cpu::Semantic s = cpu::find_semantic(i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.ends = !(interpret::block_goes_on(i) || accesses_port(i.mnemonic)) || changes_view(i.mnemonic);
    if (!debug_.no_inline && is_inlined(p, context)) p.treatment = Treatment::special, p.ends = false;
    return;
  }
  if (is_nothing(p)) {
    p.treatment = Treatment::nothing;
    return;
  }
  if (is_branch(p, context)) {
    p.treatment = Treatment::branch;
    return;
  }
  p.ends = false;
  const bool avx_zero = i.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || i.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
  if (is_stack(p, context) || is_accumulator_offset(p, context) || is_direction(i.mnemonic)) {
    p.treatment = Treatment::special;
    return;
  }
  const bool as_it_is = copied(i, context.ring0);
  if (as_it_is && is_plain(cpu, p, context)) {
    p.treatment = Treatment::plain;
    return;
  }
  if (as_it_is && !debug_.no_inline && (is_xlat(i, context) || is_bit_string(i, context))) {
    p.treatment = Treatment::special;
    return;
  }
  if (StringForm form; as_it_is && !debug_.no_inline && string_form(i, context.bits64, &form) && !form.repeats) {
    p.treatment = Treatment::special;
    return;
  }
  if (const cpu::Semantic s = interpret::find_complex(cpu, i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.ends = interpret::find_complex_branch(i) != nullptr;
    return;
  }
  if (const cpu::Semantic s = cpu::find_fpu_semantic(i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.ends = !keeps_x87_control(i.mnemonic);
    if (avx_zero && as_it_is && ready.avx && p.raw.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
      p.treatment = Treatment::vector;
      p.vector = VectorOp{};
    }
    return;
  }
  if (classify_vector(cpu, ready, p)) {
    if (debug_.no_vectors && p.treatment == Treatment::vector) p.treatment = Treatment::unit;
    if (!as_it_is && (p.treatment == Treatment::vector || p.treatment == Treatment::x87)) p.treatment = Treatment::unit;
    const Prepared ready_to_call =
        p.treatment == Treatment::unit ? unit_.prepare(cpu, i, p.raw, p.vector) : Prepared::yes;
    *full = ready_to_call == Prepared::arena_full;
    // A call that sets the pointers is the last to do so in its block: Block::x87 knows only of inline ones.
    const bool sets_pointers = p.treatment == Treatment::unit && p.vector.flags & engine::vector::flag::pointers;
    // FLDCW in line goes on only if all exceptions stay masked.
    p.ends = (!keeps_x87_control(i.mnemonic) && p.treatment != Treatment::x87) || sets_pointers;
    if (ready_to_call == Prepared::yes || *full) return;
  }
  p.treatment = Treatment::step;
  p.ends = true;
}

bool Front::decodes(const cpu::Vcpu& cpu, std::span<const u8> bytes, isa::CodeSize size) {
  isa::Insn insn;
  vector::Decoded raw;
  return isa::decode(bytes.data(), bytes.size(), size, cpu.vendor(), insn, raw) == isa::DecodeStatus::ok;
}

// The next instruction. False: the block ends before it.
bool Front::add(const cpu::Vcpu& cpu, u64 at, std::span<const u8> bytes, isa::CodeSize size, const Context& context,
                const Ready& ready, std::vector<TranslatedInsn>& out, bool* full) {
  if (out.size() == debug_.max_block || (!out.empty() && out.back().ends)) return false;
  TranslatedInsn& p = out.emplace_back();
  if (isa::decode(bytes.data(), bytes.size(), size, cpu.vendor(), p.insn, p.raw) != isa::DecodeStatus::ok) {
    out.pop_back();  // crosses the page, or is no instruction
    return false;
  }
  p.at = static_cast<u16>(at);
  engine::saw(cpu, context.start + at, p.insn);
  classify(cpu, context, ready, p, full);
  return !*full;
}

bool Front::finish(const Context& context, std::vector<TranslatedInsn>& out) const {
  memory_.prepare(context, out);
  // A block of nothing but one call is no better than the interpreter's.
  return !out.empty() && !(out.size() == 1 && out[0].treatment == Treatment::step);
}

}  // namespace trapline::engine::hostcode
