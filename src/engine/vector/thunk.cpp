#include "engine/vector/thunk.h"

#include <cstddef>

#include "cpu/vcpu.h"
#include "engine/emit/vector_forms.h"
#include "engine/vector/features.h"

namespace trapline::engine::vector {

namespace {

using cpu::Vcpu;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // Vcpu has atomics; every compiler in use lays it out plainly
constexpr i32 kGprOffset = offsetof(Vcpu, gpr);
constexpr i32 kArithOffset = offsetof(Vcpu, arith);
constexpr i32 kVectorOffset = offsetof(Vcpu, vec) + offsetof(cpu::VectorState, zmm);
constexpr i32 kMaskOffset = offsetof(Vcpu, vec) + offsetof(cpu::VectorState, k);
#pragma GCC diagnostic pop

// The field of the vCPU at [rdi + offset].
Mem gpr_at(u8 number, bool high8 = false) { return at(rdi, kGprOffset + number * 8 + high8); }
Mem vector_at(u8 number) { return at(rdi, kVectorOffset + number * 64); }
Mem mask_at(u8 number) { return at(rdi, kMaskOffset + number * 8); }
Mem arith_at() { return at(rdi, kArithOffset); }

struct Use {
  bool read = false, written = false;
  u8 kind = 0;  // what to move: see below
};

// Everything that an instruction touches outside its own encoding.
struct Uses {
  Use vector[32];  // kind: log2 of the bytes to load (4, 5, 6)
  Use mask[8];
  Use gpr[3];  // RAX, RCX, RDX of the host
  u8 guest_gpr[3] = {};
  bool high8[3] = {};
  bool flags_read = false, flags_written = false;
};

bool note_gpr(Uses& u, const ZydisDecodedOperand& op, bool read, bool written) {
  const u8 number = gpr_number(op.reg.value);
  u8 host = number;  // implicit ones (PCMPESTRI, FNSTSW AX) are fixed by the opcode
  if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) host = kRegField;
  if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) host = kRmField;
  if (host > 2)
    return op.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && !written;  // an address register: not ours to load
  Use& use = u.gpr[host];
  if ((use.read || use.written) && u.guest_gpr[host] != number) return false;
  u.guest_gpr[host] = number;
  u.high8[host] = is_high8(op.reg.value);
  if (written && u.high8[host]) return false;
  use.read |= read || op.size < 32;  // a narrow result merges
  use.written |= written;
  return true;
}

bool note_register(Uses& u, const ZydisDecodedOperand& op, bool legacy) {
  const bool read = op.actions & (ZYDIS_OPERAND_ACTION_READ | ZYDIS_OPERAND_ACTION_CONDREAD);
  const bool written = op.actions & (ZYDIS_OPERAND_ACTION_WRITE | ZYDIS_OPERAND_ACTION_CONDWRITE);
  const u8 id = static_cast<u8>(ZydisRegisterGetId(op.reg.value));
  const auto vector = [&](u8 log2_bytes) {
    if (id >= 32) return false;
    Use& use = u.vector[id];
    // Scalar results merge, whatever the decoder calls them; a load too many costs little.
    use.read |= read || written;
    use.written |= written;
    if (use.kind < log2_bytes) use.kind = log2_bytes;
    return true;
  };
  switch (ZydisRegisterGetClass(op.reg.value)) {
    case ZYDIS_REGCLASS_XMM:
      return vector(4);
    case ZYDIS_REGCLASS_YMM:
      return !legacy && vector(5);
    case ZYDIS_REGCLASS_ZMM:
      return !legacy && vector(6);
    case ZYDIS_REGCLASS_MASK:
      if (id >= 8) return false;
      if (op.encoding == ZYDIS_OPERAND_ENCODING_MASK && id == 0) return true;  // k0 there means "no mask"
      u.mask[id].read |= read || written;
      u.mask[id].written |= written;
      return true;
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
      return note_gpr(u, op, read, written);
    default:
      return true;  // x87 and MMX live in the host; flags are taken from the flag masks
  }
}

bool collect(const Decoded& d, Uses& u) {
  const bool legacy = d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !note_register(u, d.op[i], legacy)) return false;
  // VP2INTERSECT writes a pair of opmasks, of which it names one.
  if (d.insn.mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTD || d.insn.mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTQ)
    for (unsigned pair = 0; pair < 8; pair += 2) {
      const bool written = u.mask[pair].written || u.mask[pair + 1].written;
      u.mask[pair].written = u.mask[pair + 1].written = written;
    }
  if (const ZydisAccessedFlags* f = d.insn.cpu_flags) {
    constexpr u32 kArith = cpu::flag::arith;
    u.flags_read = f->tested & kArith;
    u.flags_written = (f->modified | f->set_0 | f->set_1 | f->undefined) & kArith;
  }
  return true;
}

constexpr Width width_by(u8 log2_bytes) { return static_cast<Width>(log2_bytes - 4); }

void load_vector(Emitter& out, u8 reg, u8 log2_bytes, bool legacy) {
  legacy ? movups(out, reg, vector_at(reg)) : vmovups(out, width_by(log2_bytes), reg, vector_at(reg));
}
void store_vector(Emitter& out, u8 reg, u8 log2_bytes, bool legacy) {
  legacy ? movups(out, vector_at(reg), reg) : vmovups(out, width_by(log2_bytes), vector_at(reg), reg);
}

void load_mask(Emitter& out, u8 k) { host_has_avx512bw() ? kmovq(out, k, mask_at(k)) : kmovw(out, k, mask_at(k)); }
void store_mask(Emitter& out, u8 k) { host_has_avx512bw() ? kmovq(out, mask_at(k), k) : kmovw(out, mask_at(k), k); }

void load_inputs(const Uses& u, bool legacy, Emitter& out) {
  if (u.flags_read || u.flags_written) {
    out.movzx16(rax, arith_at());
    out.add7f_sahf();
  }
  for (u8 i = 0; i < 3; i++) {
    if (!u.gpr[i].read) continue;
    if (u.high8[i])
      out.movzx8(i, gpr_at(u.guest_gpr[i], true));
    else
      out.load(i, gpr_at(u.guest_gpr[i]));
  }
  for (u8 i = 0; i < 32; i++)
    if (u.vector[i].read) load_vector(out, i, u.vector[i].kind, legacy);
  for (u8 i = 0; i < 8; i++)
    if (u.mask[i].read) load_mask(out, i);
}

void store_outputs(const Uses& u, bool legacy, Emitter& out) {
  // VEX and EVEX results are zero up to the widest register that exists.
  const u8 widest = legacy ? 4 : host_has_avx512() ? 6 : 5;
  for (u8 i = 0; i < 32; i++)
    if (u.vector[i].written) store_vector(out, i, widest, legacy);
  for (u8 i = 0; i < 8; i++)
    if (u.mask[i].written) store_mask(out, i);
  for (u8 i = 0; i < 3; i++)
    if (u.gpr[i].written) out.store(gpr_at(u.guest_gpr[i]), i);
  if (u.flags_written) {
    out.lahf_seto();
    out.store16(arith_at(), rax);
  }
  if (!legacy) vzeroupper(out);
  out.exclusive_or(rax, rax);
  out.ret();
}

bool writes_at_rdi(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

}  // namespace

bool build_thunk(const Decoded& d, const u8* source, Emitter& out) {
  Uses u;
  if (!collect(d, u)) return false;
  const bool legacy = d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  load_inputs(u, legacy, out);
  const bool at_rdi = writes_at_rdi(d.insn.mnemonic);
  if (at_rdi) out.mov(r8, rdi), out.mov(rdi, rsi);
  if (!rebuild(d, source, out)) return false;
  if (at_rdi) out.mov(rdi, r8);
  store_outputs(u, legacy, out);
  return !out.overflowed();
}

}  // namespace trapline::engine::vector
