#include "engine/vector/thunk.h"

#include <cstddef>

#include "cpu/vcpu.h"
#include "engine/vector/features.h"

namespace trapline::engine::vector {

namespace {

using cpu::Vcpu;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // Vcpu has atomics; every compiler in use lays it out plainly
constexpr u32 kGprOffset = offsetof(Vcpu, gpr);
constexpr u32 kArithOffset = offsetof(Vcpu, arith);
constexpr u32 kVectorOffset = offsetof(Vcpu, vec) + offsetof(cpu::VectorState, zmm);
constexpr u32 kMaskOffset = offsetof(Vcpu, vec) + offsetof(cpu::VectorState, k);
#pragma GCC diagnostic pop

// ModRM for [rdi + disp32].
void put_rdi_operand(Code& out, unsigned reg, u32 disp) {
  out.byte(0x80 | (reg & 7) << 3 | 7);
  out.disp32(disp);
}

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

// (V)MOVUPS between a register and cpu.vec, in the shortest form that reaches both.
void put_vector_move(Code& out, bool store, u8 reg, u8 log2_bytes, bool legacy) {
  const unsigned opcode = store ? 0x11 : 0x10;
  if (legacy) {
    if (reg & 8) out.byte(0x44);
    out.put(0x0F, opcode);
  } else if (reg < 16 && log2_bytes < 6) {
    out.put(0xC5, (reg & 8 ? 0 : 0x80) | 0x78 | (log2_bytes == 5 ? 4 : 0), opcode);
  } else {
    out.put(0x62, (reg & 8 ? 0 : 0x80) | 0x60 | (reg & 16 ? 0 : 0x10) | 1, 0x7C, (log2_bytes - 4u) << 5 | 8, opcode);
  }
  put_rdi_operand(out, reg, kVectorOffset + reg * 64u);
}

void put_mask_move(Code& out, bool store, u8 k) {
  const unsigned opcode = store ? 0x91 : 0x90;
  if (host_has_avx512bw())
    out.put(0xC4, 0xE1, 0xF8, opcode);  // KMOVQ
  else
    out.put(0xC5, 0xF8, opcode);  // KMOVW
  put_rdi_operand(out, k, kMaskOffset + k * 8u);
}

void put_inputs(const Uses& u, bool legacy, Code& out) {
  if (u.flags_read || u.flags_written) {
    out.put(0x0F, 0xB7);  // movzx eax, word [arith]
    put_rdi_operand(out, 0, kArithOffset);
    out.put(0x04, 0x7F, 0x9E);  // add al, 0x7f: OF; sahf: the others
  }
  for (u8 i = 0; i < 3; i++) {
    if (!u.gpr[i].read) continue;
    if (u.high8[i])
      out.put(0x0F, 0xB6);
    else
      out.put(0x48, 0x8B);
    put_rdi_operand(out, i, kGprOffset + u.guest_gpr[i] * 8u + u.high8[i]);
  }
  for (u8 i = 0; i < 32; i++)
    if (u.vector[i].read) put_vector_move(out, false, i, u.vector[i].kind, legacy);
  for (u8 i = 0; i < 8; i++)
    if (u.mask[i].read) put_mask_move(out, false, i);
}

void put_outputs(const Uses& u, bool legacy, Code& out) {
  // VEX and EVEX results are zero up to the widest register that exists.
  const u8 widest = legacy ? 4 : host_has_avx512() ? 6 : 5;
  for (u8 i = 0; i < 32; i++)
    if (u.vector[i].written) put_vector_move(out, true, i, widest, legacy);
  for (u8 i = 0; i < 8; i++)
    if (u.mask[i].written) put_mask_move(out, true, i);
  for (u8 i = 0; i < 3; i++) {
    if (!u.gpr[i].written) continue;
    out.put(0x48, 0x89);
    put_rdi_operand(out, i, kGprOffset + u.guest_gpr[i] * 8u);
  }
  if (u.flags_written) {
    out.put(0x9F, 0x0F, 0x90, 0xC0, 0x66, 0x89);  // lahf; seto al; mov [arith], ax
    put_rdi_operand(out, 0, kArithOffset);
  }
  if (!legacy) out.put(0xC5, 0xF8, 0x77);  // vzeroupper
  out.put(0x31, 0xC0, 0xC3);
}

bool writes_at_rdi(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

}  // namespace

bool build_thunk(const Decoded& d, const u8* source, Code& out) {
  Uses u;
  if (!collect(d, u)) return false;
  const bool legacy = d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  put_inputs(u, legacy, out);
  const bool at_rdi = writes_at_rdi(d.insn.mnemonic);
  if (at_rdi) out.put(0x49, 0x89, 0xF8, 0x48, 0x89, 0xF7);  // mov r8, rdi; mov rdi, rsi
  if (!rebuild(d, source, out)) return false;
  if (at_rdi) out.put(0x4C, 0x89, 0xC7);  // mov rdi, r8
  put_outputs(u, legacy, out);
  return !out.overflowed();
}

}  // namespace trapline::engine::vector
