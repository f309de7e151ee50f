#include "engine/vector/classify.h"

#include <cpuid.h>

#include "cpu/fpu.h"
#include "isa/traits.h"

namespace trapline::engine::vector {

namespace {

const isa::Traits& traits(const Decoded& d) { return isa::traits(d.insn.mnemonic); }

struct RegisterFiles {
  bool x87_or_mmx = false, mmx = false, vec = false, mask = false;
};

// By encoding: the decoder counts FISTTP among SSE3.
bool is_x87(const Decoded& d) {
  return d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && d.insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
         (d.insn.opcode & 0xF8) == 0xD8;
}

RegisterFiles files_of(const Decoded& d) {
  RegisterFiles f;
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    if (d.op[i].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (ZydisRegisterGetClass(d.op[i].reg.value)) {
      case ZYDIS_REGCLASS_MMX:
        f.mmx = true;
        break;
      case ZYDIS_REGCLASS_XMM:
      case ZYDIS_REGCLASS_YMM:
      case ZYDIS_REGCLASS_ZMM:
        f.vec = true;
        break;
      case ZYDIS_REGCLASS_MASK:
        f.mask = true;
        break;
      default:
        break;
    }
  }
  f.x87_or_mmx = f.mmx || is_x87(d);
  return f;
}

cpu::Unit unit_of(const Decoded& d, const RegisterFiles& f) {
  if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) return cpu::Unit::avx512;
  if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) return f.mask ? cpu::Unit::avx512 : cpu::Unit::avx;
  if (is_x87(d)) return cpu::Unit::x87;
  return f.vec ? cpu::Unit::sse : f.mmx ? cpu::Unit::mmx : cpu::Unit::none;
}

bool uses_mxcsr(const Decoded& d) {
  switch (d.insn.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E11:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
      return true;
    default:
      break;
  }
  return traits(d).has(isa::trait::uses_mxcsr);
}

// Legacy SSE: every 16-byte operand but these must be aligned (exception types 1, 2, 4). VEX and EVEX: type 1 alone.
// SHA is of type 4 (SDM Vol. 2B), yet AMD's processors take its operands anywhere.
u8 alignment(const Decoded& d, isa::Vendor vendor, u16 bytes) {
  switch (d.insn.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
      return static_cast<u8>(bytes - 1);
    default:
      break;
  }
  if (d.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || bytes != 16) return 0;
  if (traits(d).has(isa::trait::unaligned)) return 0;
  return vendor == isa::Vendor::amd && d.insn.meta.isa_ext == ZYDIS_ISA_EXT_SHA ? 0 : 15;
}

// The "no fault suppression" types access the whole operand whatever the opmask says.
bool suppresses_faults(const Decoded& d) {
  switch (d.insn.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
      return false;
    default:
      break;
  }
  return !traits(d).has(isa::trait::whole_operand);
}

u8 broadcast_factor(ZydisBroadcastMode mode) {
  switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
    case ZYDIS_BROADCAST_MODE_8_TO_16:
      return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
      return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
      return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
      return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
      return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
      return 64;
    default:
      return 1;
  }
}

u8 opmask_of(const Decoded& d) {
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && d.op[i].encoding == ZYDIS_OPERAND_ENCODING_MASK)
      return static_cast<u8>(ZydisRegisterGetId(d.op[i].reg.value)) & 7;
  return 0;
}

const ZydisDecodedOperand* memory_of(const Decoded& d) {
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY) return &d.op[i];
  return nullptr;
}

const ZydisDecodedOperand* register_by(const Decoded& d, ZydisOperandEncoding encoding) {
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && d.op[i].encoding == encoding) return &d.op[i];
  return nullptr;
}

u8 id_of(const ZydisDecodedOperand& op) { return static_cast<u8>(ZydisRegisterGetId(op.reg.value)); }

unsigned vector_bytes(ZydisRegister reg) {
  const ZydisRegisterClass c = ZydisRegisterGetClass(reg);
  return c == ZYDIS_REGCLASS_XMM ? 16 : c == ZYDIS_REGCLASS_YMM ? 32 : 64;
}

// Gathers and scatters. The index size follows from the mnemonic: (V)P?GATHER[DQ]*, SCATTER alike.
bool classify_vsib(const Decoded& d, const ZydisDecodedOperand& mem, VectorOp& out) {
  switch (d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
      out.kind = static_cast<u8>(Kind::gather), out.index_bytes = 4;
      break;
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
      out.kind = static_cast<u8>(Kind::gather), out.index_bytes = 8;
      break;
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VPSCATTERDD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ:
      out.kind = static_cast<u8>(Kind::scatter), out.index_bytes = 4;
      break;
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
      out.kind = static_cast<u8>(Kind::scatter), out.index_bytes = 8;
      break;
    default:
      return false;  // gather prefetches: Xeon Phi alone
  }
  const ZydisDecodedOperand* data = register_by(d, ZYDIS_OPERAND_ENCODING_MODRM_REG);
  if (!data) return false;
  out.element_bytes = static_cast<u8>(mem.size / 8);
  if (out.element_bytes != 4 && out.element_bytes != 8) return false;
  out.mem_bytes = out.element_bytes;
  out.data_reg = id_of(*data);
  const unsigned length = d.insn.avx.vector_length / 8u;
  const unsigned widest = out.index_bytes > out.element_bytes ? out.index_bytes : out.element_bytes;
  out.count = static_cast<u8>(length / widest);
  const u8 index = static_cast<u8>(ZydisRegisterGetId(mem.mem.index));
  if (out.flags & flag::evex) {
    out.mask_reg = opmask_of(d);
    return out.mask_reg != 0 && (out.kind == static_cast<u8>(Kind::scatter) || out.data_reg != index);
  }
  const ZydisDecodedOperand* mask = register_by(d, ZYDIS_OPERAND_ENCODING_NDSNDD);
  if (!mask) return false;
  out.mask_reg = id_of(*mask);
  return out.data_reg != index && out.data_reg != out.mask_reg && out.mask_reg != index;
}

bool classify_opmasked(const Decoded& d, const ZydisDecodedOperand& mem, bool store, VectorOp& out) {
  const auto set = [&](Kind k) { out.kind = static_cast<u8>(k); };
  out.mask_reg = opmask_of(d);
  out.element_bytes =
      static_cast<u8>(traits(d).has(isa::trait::dword_mask) && mem.size >= 32 ? 4 : mem.element_size / 8);
  if (out.element_bytes == 0 || out.mem_bytes % out.element_bytes != 0) return false;
  out.count = static_cast<u8>(out.mem_bytes / out.element_bytes * broadcast_factor(d.insn.avx.broadcast.mode));
  if (out.mask_reg == 0 || (!store && !suppresses_faults(d))) return true;
  if (!suppresses_faults(d)) out.flags |= flag::no_suppression;
  switch (d.insn.meta.category) {
    case ZYDIS_CATEGORY_COMPRESS:
      set(Kind::compress);
      break;
    case ZYDIS_CATEGORY_EXPAND:
      set(Kind::expand);
      break;
    default:
      set(store ? Kind::masked_store : Kind::masked_load);
      break;
  }
  if (d.insn.mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSB || d.insn.mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSW)
    set(Kind::compress);
  if (d.insn.mnemonic == ZYDIS_MNEMONIC_VPEXPANDB || d.insn.mnemonic == ZYDIS_MNEMONIC_VPEXPANDW) set(Kind::expand);
  return true;
}

bool classify_vmask(const Decoded& d, bool store, VectorOp& out) {
  switch (d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
      out.element_bytes = 4;
      break;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
      out.element_bytes = 8;
      break;
    default:
      return false;
  }
  const ZydisDecodedOperand* mask = register_by(d, ZYDIS_OPERAND_ENCODING_NDSNDD);
  if (!mask) return false;
  out.mask_reg = id_of(*mask);
  out.count = static_cast<u8>(vector_bytes(mask->reg.value) / out.element_bytes);
  out.kind = static_cast<u8>(store ? Kind::vmask_store : Kind::vmask_load);
  return true;
}

bool classify_memory(const Decoded& d, isa::Vendor vendor, VectorOp& out) {
  const ZydisDecodedOperand* mem = memory_of(d);
  if (!mem) {
    out.kind = static_cast<u8>(Kind::reg);
    return true;
  }
  if (mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB) return classify_vsib(d, *mem, out);
  out.mem_bytes = static_cast<u16>(mem->size / 8);
  if (out.mem_bytes == 0 || out.mem_bytes > 64) return false;
  if (mem->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
    out.kind = static_cast<u8>(Kind::mask_move);
    out.element_bytes = 1;
    return true;
  }
  out.align_mask = alignment(d, vendor, out.mem_bytes);
  const bool store = mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
  if (store && mem->actions & ZYDIS_OPERAND_ACTION_READ) return false;
  out.kind = static_cast<u8>(store ? Kind::store : Kind::load);
  if (out.flags & flag::evex) return classify_opmasked(d, *mem, store, out);
  classify_vmask(d, store, out);
  return true;
}

bool fdp_on_exception_only() {
  static const bool value = [] {
    u32 a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 6);
  }();
  return value;
}

void classify_x87(const Decoded& d, const RegisterFiles& f, VectorOp& out) {
  // CVTPI2PS enters MMX state even from memory, but does not look at pending exceptions then.
  if (!f.x87_or_mmx && d.insn.mnemonic != ZYDIS_MNEMONIC_CVTPI2PS) return;
  out.flags |= flag::x87;
  if (f.x87_or_mmx && !traits(d).has(isa::trait::nonwaiting)) out.flags |= flag::waits;
  if (!is_x87(d) || traits(d).has(isa::trait::keeps_pointers)) return;
  out.flags |= flag::pointers;
  if (fdp_on_exception_only()) out.flags |= flag::fdp_on_exception_only;
  const auto& m = d.insn.raw.modrm;
  out.fop = static_cast<u16>((d.insn.opcode & 7) << 8 | m.mod << 6 | m.reg << 3 | m.rm);
}

bool is_prefetch(const Decoded& d) {
  return d.insn.meta.category == ZYDIS_CATEGORY_PREFETCH || d.insn.meta.isa_set == ZYDIS_ISA_SET_SSE_PREFETCH;
}

}  // namespace

bool is_vector(const Decoded& d) {
  switch (d.insn.meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
      break;
    // Vector sets that are never offered: prepare() answers undefined.
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_XOP:
      return true;
    default:
      return false;
  }
  return traits(d).semantics != isa::Semantics::fpu && !traits(d).has(isa::trait::not_vector);
}

bool classify(const Decoded& d, isa::Vendor vendor, VectorOp& out) {
  if (is_prefetch(d)) {
    out.unit = static_cast<u8>(cpu::Unit::none);
    out.kind = static_cast<u8>(Kind::nothing);
    return true;
  }
  const RegisterFiles files = files_of(d);
  out.unit = static_cast<u8>(unit_of(d, files));
  if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) out.flags |= flag::evex;
  if (uses_mxcsr(d)) out.flags |= flag::mxcsr;
  classify_x87(d, files, out);
  return classify_memory(d, vendor, out);
}

}  // namespace trapline::engine::vector
