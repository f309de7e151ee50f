#include "engine/hostcode/front.h"

#include "cpu/fpu.h"
#include "engine/common/executed_scan.h"
#include "engine/hostcode/treatment.h"
#include "engine/semantics/complex.h"
#include "engine/vector/op.h"
#include "isa/decode_memo.h"
#include "isa/traits.h"

namespace trapline::engine::hostcode {

using cpu::Seg;

namespace {

// Not one that an instruction implies and that has another place in the host, but for RCX as a result (PCMPISTRI).
bool stays_in_place(const ZydisDecodedOperand& op) {
  if (op.type != ZYDIS_OPERAND_TYPE_REGISTER || op.encoding != ZYDIS_OPERAND_ENCODING_NONE) return true;
  const ZydisRegisterClass of = ZydisRegisterGetClass(op.reg.value);
  if (of == ZYDIS_REGCLASS_XMM || of == ZYDIS_REGCLASS_FLAGS) return true;
  if (!is_gpr(op)) return false;
  const u8 number = gpr_number(op.reg.value);
  const bool written = op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
  return number == isa::rcx ? written : !written && (number == isa::rax || number == isa::rdx);
}

}  // namespace

bool Front::classify_vector(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, TranslatedInsn& p) {
  using VectorKind = engine::vector::Kind;
  if (unit_.describe(cpu, p.raw, p.vector) != Prepared::yes) return false;
  p.treatment = Treatment::unit;
  const auto kind = static_cast<VectorKind>(p.vector.kind);
  if (kind == VectorKind::nothing) {
    p.treatment = Treatment::nothing;
    return true;
  }
  if (!p.has_elements() && !in_reach(p.insn, context)) return true;
  if (p.vector.flags & engine::vector::flag::x87) {
    // With FDP updated on exceptions alone, and those masked, FDP is nothing to keep; elsewhere it is the operand's
    // address, if no segment base is part of that (lower.cpp).
    const bool pointers_kept = !(p.vector.flags & engine::vector::flag::pointers) ||
                               (p.vector.flags & engine::vector::flag::fdp_on_exception_only) ||
                               p.vector.mem_bytes == 0 || (p.insn.mem.seg != Seg::fs && p.insn.mem.seg != Seg::gs);
    const auto unit = static_cast<cpu::Unit>(p.vector.unit);
    const bool plain = kind == VectorKind::reg || kind == VectorKind::load || kind == VectorKind::store ||
                       (kind == VectorKind::mask_move && bytes_reachable(p.insn, context));
    // MOVQ2DQ and its kin use both register files.
    const bool unit_ready = unit == cpu::Unit::x87 || unit == cpu::Unit::mmx || (unit == cpu::Unit::sse && ready.sse);
    if (ready.x87 && pointers_kept && plain && unit_ready && !(p.vector.flags & engine::vector::flag::mxcsr))
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
  if (p.has_elements() && !elements_reachable(p, context)) return true;
  if (kind == VectorKind::mask_move) {
    if (bytes_reachable(p.insn, context)) p.treatment = Treatment::vector;
    return true;
  }
  for (u8 i = 0; i < p.raw.insn.operand_count; i++)
    if (!stays_in_place(p.raw.op[i])) return true;
  p.treatment = Treatment::vector;
  return true;
}

namespace {

// One with a semantic that the host executes as it is, with the registers of its unit in place.
void become_vector(TranslatedInsn& p, Treatment treatment, u16 mem_bytes) {
  p.treatment = treatment;
  p.vector = VectorOp{};
  p.vector.mem_bytes = mem_bytes;
}

}  // namespace

void Front::classify(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, TranslatedInsn& p, bool* full) {
  const isa::Insn& i = p.insn;
  if (isa::never_offered(p.raw)) {
    p.treatment = Treatment::step;
    p.ends = true;
    return;
  }
  if (traps_ && context.ring0 && is_sensitive(i, isa::Ring::ring0)) {
    p.treatment = Treatment::trap;
    p.ends = true;
    return;
  }
  if (const cpu::Semantic s = cpu::find_semantic(i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.ends = ends_block(i);
    if (!debug_.no_inline && is_inlined(p, context, ready) && semantics::offered(cpu, i))
      p.treatment = Treatment::special, p.ends = turns(p, context);
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
  if (const cpu::Semantic s = semantics::find_complex(cpu, i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.ends = semantics::find_complex_branch(i) != nullptr;
    return;
  }
  if (const cpu::Semantic s = cpu::find_fpu_semantic(i)) {
    p.treatment = Treatment::semantic;
    p.semantic = s;
    p.last = !keeps_x87_control(i.mnemonic);
    // The upper eight registers are none of 32-bit code's.
    if (avx_zero && context.bits64 && as_it_is && ready.avx && p.raw.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
      become_vector(p, Treatment::vector, 0);
    else if (as_it_is && !debug_.no_inline && is_mxcsr(cpu, i, context, ready))
      become_vector(p, Treatment::vector, 4);
    else if (as_it_is && ready.x87 && is_x87_state(i.mnemonic))
      become_vector(p, Treatment::x87, 0);
    else if (as_it_is && !debug_.no_inline && ready.x87 && is_environment(i, context))
      become_vector(p, Treatment::x87, 28);
    return;
  }
  if (classify_vector(cpu, context, ready, p)) {
    if (debug_.no_vectors && p.treatment == Treatment::vector) p.treatment = Treatment::unit;
    if (!as_it_is && (p.treatment == Treatment::vector || p.treatment == Treatment::x87)) p.treatment = Treatment::unit;
    const Prepared ready_to_call =
        p.treatment == Treatment::unit ? unit_.prepare(cpu, i, p.raw, p.vector) : Prepared::yes;
    *full = ready_to_call == Prepared::arena_full;
    // A call that sets the pointers is the last to do so in its block: Block::x87 knows only of inline ones.
    const bool sets_pointers = p.treatment == Treatment::unit && p.vector.flags & engine::vector::flag::pointers;
    // FLDCW in line goes on only if all exceptions stay masked.
    p.last = (!keeps_x87_control(i.mnemonic) && p.treatment != Treatment::x87) || sets_pointers;
    if (ready_to_call == Prepared::yes || *full) return;
  }
  p.treatment = Treatment::step;
  p.ends = true;
}

bool Front::decodes(const cpu::Vcpu& cpu, std::span<const u8> bytes, isa::CodeSize size) {
  isa::Insn insn;
  Decoded raw;
  return isa::decode(bytes.data(), bytes.size(), size, cpu.vendor(), insn, raw) == isa::DecodeStatus::ok;
}

// The next instruction. False: the block ends before it.
bool Front::add(const cpu::Vcpu& cpu, u64 at, std::span<const u8> bytes, isa::CodeSize size, const Context& context,
                const Ready& ready, std::vector<TranslatedInsn>& out, bool* full) {
  if (out.size() == debug_.max_block || (!out.empty() && (out.back().ends || out.back().last))) return false;
  TranslatedInsn& p = out.emplace_back();
  if (isa::decode_often(bytes.data(), bytes.size(), size, cpu.vendor(), p.insn, p.raw) != isa::DecodeStatus::ok) {
    out.pop_back();  // crosses the page, or is no instruction
    return false;
  }
  p.at = static_cast<u16>(at);
  engine::saw(cpu, context.start.wrapping_add(at), p.insn);
  classify(cpu, context, ready, p, full);
  return !*full;
}

bool Front::finish(const Context& context, std::vector<TranslatedInsn>& out) const {
  memory_.prepare(context, out);
  // A block of nothing but one call is no better than the interpreter's.
  return !out.empty() && !(out.size() == 1 && out[0].treatment == Treatment::step);
}

}  // namespace trapline::engine::hostcode
