// Zydis' decoded instruction -> isa::Insn. Everything an engine needs twice is resolved here once: effective segment,
// widths, register numbers.
#include <cstring>

#include "isa/raw.h"
#include "isa/reading.h"

namespace trapline::isa {

namespace {

// All that are needed, made once.
const Reader& reader(CodeSize size, Vendor vendor) {
  static const Reader readers[2][3] = {
      {{CodeSize::bits16, Vendor::intel}, {CodeSize::bits32, Vendor::intel}, {CodeSize::bits64, Vendor::intel}},
      {{CodeSize::bits16, Vendor::amd}, {CodeSize::bits32, Vendor::amd}, {CodeSize::bits64, Vendor::amd}}};
  const unsigned n = size == CodeSize::bits64 ? 2 : size == CodeSize::bits32 ? 1 : 0;
  return readers[vendor == Vendor::amd][n];
}

Seg segment_of(ZydisRegister reg) {
  switch (reg) {
    case ZYDIS_REGISTER_ES:
      return Seg::es;
    case ZYDIS_REGISTER_CS:
      return Seg::cs;
    case ZYDIS_REGISTER_SS:
      return Seg::ss;
    case ZYDIS_REGISTER_DS:
      return Seg::ds;
    case ZYDIS_REGISTER_FS:
      return Seg::fs;
    case ZYDIS_REGISTER_GS:
      return Seg::gs;
    default:
      return Seg::none;
  }
}

bool between(ZydisRegister reg, ZydisRegister first, ZydisRegister last) { return reg >= first && reg <= last; }

void set_register(Operand& out, ZydisRegister reg) {
  using Kind = Operand::Kind;
  const auto id = [&] { return static_cast<u8>(ZydisRegisterGetId(reg)); };
  if (between(reg, ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH)) {
    out.kind = Kind::gpr;
    out.reg = static_cast<u8>(reg - ZYDIS_REGISTER_AH);
    out.high8 = true;
    return;
  }
  // AL..R15B are not in encoding order for Zydis' ids (AH..BH stand between BL and SPL).
  if (between(reg, ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL)) {
    out.kind = Kind::gpr;
    out.reg = static_cast<u8>(reg - ZYDIS_REGISTER_AL);
    return;
  }
  if (between(reg, ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B)) {
    out.kind = Kind::gpr;
    out.reg = static_cast<u8>(reg - ZYDIS_REGISTER_SPL + 4);
    return;
  }
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
      out.kind = Kind::gpr, out.reg = id();
      break;
    case ZYDIS_REGCLASS_X87:
      out.kind = Kind::st, out.reg = id();
      break;
    case ZYDIS_REGCLASS_MMX:
      out.kind = Kind::mmx, out.reg = id();
      break;
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
      out.kind = Kind::vec, out.reg = id();
      break;
    case ZYDIS_REGCLASS_MASK:
      out.kind = Kind::mask, out.reg = id();
      break;
    case ZYDIS_REGCLASS_BOUND:
      out.kind = Kind::bnd, out.reg = id();
      break;
    case ZYDIS_REGCLASS_SEGMENT:
      out.kind = Kind::seg, out.reg = static_cast<u8>(segment_of(reg));
      break;
    case ZYDIS_REGCLASS_CONTROL:
      out.kind = Kind::cr, out.reg = id();
      break;
    case ZYDIS_REGCLASS_DEBUG:
      out.kind = Kind::dr, out.reg = id();
      break;
    default:
      out.kind = Kind::other;
      break;
  }
}

void set_memory(Insn& out, const ZydisDecodedInstruction& zi, const ZydisDecodedOperand& zo) {
  MemOperand& m = out.mem;
  m.seg = segment_of(zo.mem.segment);
  if (m.seg == Seg::none) m.seg = Seg::ds;
  // In 64-bit mode CS, DS, ES and SS overrides are ignored; only SS by base register matters (for #SS).
  m.address_bytes = static_cast<u8>(zi.address_width / 8);
  m.bytes = static_cast<u16>(zo.size / 8);
  m.disp = zo.mem.disp.has_displacement ? zo.mem.disp.value : 0;
  if (zo.mem.base == ZYDIS_REGISTER_RIP || zo.mem.base == ZYDIS_REGISTER_EIP)
    m.base = kRegRip;
  else if (zo.mem.base != ZYDIS_REGISTER_NONE)
    m.base = static_cast<u8>(ZydisRegisterGetId(zo.mem.base));
  // A SIB byte with mod 0 and base 5 names no base, whatever REX.B says (SDM Vol. 2A table 2-5); Zydis 4.0 takes it for
  // r13d when the address size is 32.
  if (zi.raw.modrm.mod == 0 && zi.raw.modrm.rm == 4 && zi.raw.sib.base == 5 && (zi.attributes & ZYDIS_ATTRIB_HAS_SIB)) {
    m.base = kNoReg;
    m.disp = zi.raw.disp.value;
  }
  if (zo.mem.index != ZYDIS_REGISTER_NONE) {
    m.index = static_cast<u8>(ZydisRegisterGetId(zo.mem.index));
    m.vsib = zo.mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    m.scale_log2 = static_cast<u8>(zo.mem.scale == 8 ? 3 : zo.mem.scale == 4 ? 2 : zo.mem.scale == 2 ? 1 : 0);
  }
}

Seg override_of(const ZydisDecodedInstruction& zi) {
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) return Seg::fs;
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) return Seg::gs;
  if (zi.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) return Seg::none;
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) return Seg::cs;
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS) return Seg::ss;
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_DS) return Seg::ds;
  if (zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES) return Seg::es;
  return Seg::none;
}

bool far_pointer(const Insn& i) {
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
      return i.mem.bytes == 10;  // a near one is of 8 bytes
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
      return true;
    default:
      return false;
  }
}

// What an operand's width depends on, the length being the same.
void obey_vendor(Insn& out, Vendor vendor) {
  // MOVSXD with a 16-bit operand reads 16 bits (SDM Vol. 2B); AMD's CPUs read 32 as Zydis says, and store 16 of them.
  if (out.mnemonic == ZYDIS_MNEMONIC_MOVSXD && out.operand_bytes == 2) {
    out.op[1].bytes = vendor == Vendor::amd ? 4 : 2;
    if (out.op[1].kind == Operand::Kind::mem) out.mem.bytes = out.op[1].bytes;
  }
  // A pointer in memory has at most 32 bits of offset on AMD's CPUs, REX.W or not (APM Vol. 3 JMP far, CALL far, LxS).
  // The operand size is 64 bits all the same: CALL pushes 8 bytes each.
  if (vendor == Vendor::amd && out.operand_bytes == 8 && far_pointer(out)) {
    out.mem.bytes = 6;
    for (u8 n = 0; n < out.operand_count; n++)
      if (out.op[n].kind == Operand::Kind::mem) out.op[n].bytes = 6;
  }
}

}  // namespace

DecodeStatus decode(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out) {
  Raw raw;
  return decode(bytes, available, size, vendor, out, raw);
}

DecodeStatus decode(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw) {
  if (available > 15) available = 15;
  ZydisDecodedInstruction& zi = raw.insn;
  ZydisDecodedOperand* const operands = raw.op;
  ZydisDecoderContext context;
  const Reader& from = reader(size, vendor);
  const ZyanStatus status = from.read(bytes, available, &context, zi);
  if (!ZYAN_SUCCESS(status)) {
    if (status == ZYDIS_STATUS_NO_MORE_DATA) return available == 15 ? DecodeStatus::too_long : DecodeStatus::truncated;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return DecodeStatus::too_long;
    return DecodeStatus::invalid;
  }
  if (!ZYAN_SUCCESS(from.operands(context, zi, operands))) return DecodeStatus::invalid;

  out = Insn{};
  out.mnemonic = zi.mnemonic;
  out.code_size = size;
  out.vendor = vendor;
  out.length = zi.length;
  out.operand_bytes = static_cast<u8>(zi.operand_width / 8);
  out.address_bytes = static_cast<u8>(zi.address_width / 8);
  out.stack_bytes = static_cast<u8>(zi.stack_width / 8);
  out.lock = zi.attributes & ZYDIS_ATTRIB_HAS_LOCK;
  out.rep = zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
  out.repne = zi.attributes & ZYDIS_ATTRIB_HAS_REPNE;
  std::memcpy(out.bytes.data(), bytes, zi.length);

  bool first_immediate = true;
  for (u8 i = 0; i < zi.operand_count_visible && out.operand_count < out.op.size(); i++) {
    const ZydisDecodedOperand& zo = operands[i];
    Operand& op = out.op[out.operand_count++];
    op.bytes = static_cast<u16>(zo.size / 8);
    op.read = zo.actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    op.written = zo.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    switch (zo.type) {
      case ZYDIS_OPERAND_TYPE_REGISTER:
        set_register(op, zo.reg.value);
        break;
      case ZYDIS_OPERAND_TYPE_MEMORY:
        op.kind = Operand::Kind::mem;
        set_memory(out, zi, zo);
        break;
      case ZYDIS_OPERAND_TYPE_POINTER:
        op.kind = Operand::Kind::far_ptr;
        out.imm = zo.ptr.offset;
        out.imm2 = zo.ptr.segment;
        break;
      case ZYDIS_OPERAND_TYPE_IMMEDIATE: {
        op.kind = Operand::Kind::imm;
        const u64 value = zo.imm.is_signed ? static_cast<u64>(zo.imm.value.s) : zo.imm.value.u;
        (first_immediate ? out.imm : out.imm2) = value;
        first_immediate = false;
        break;
      }
      default:
        op.kind = Operand::Kind::other;
        break;
    }
  }
  obey_vendor(out, vendor);
  // String instructions (two memory operands) and implicit ones (XLAT, MASKMOVDQU): only the source's segment is of
  // interest.
  const bool string = zi.meta.category == ZYDIS_CATEGORY_STRINGOP || zi.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
  if (string || out.mem.bytes == 0) {
    const Seg seg = override_of(zi);
    if (string) {
      out.mem = MemOperand{};
      out.mem.address_bytes = out.address_bytes;
      out.mem.bytes = out.operand_bytes;
    }
    if (seg != Seg::none) out.mem.seg = seg;
  }
  return DecodeStatus::ok;
}

std::size_t format(const Insn& insn, u64 address, char* buffer, std::size_t size) {
  if (size == 0) return 0;
  ZydisDecodedInstruction zi;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  static const ZydisFormatter formatter = [] {
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    return f;
  }();
  buffer[0] = 0;
  const Reader& from = reader(insn.code_size, insn.vendor);
  ZydisDecoderContext context;
  if (!ZYAN_SUCCESS(from.read(insn.bytes.data(), insn.length, &context, zi)) ||
      !ZYAN_SUCCESS(from.operands(context, zi, operands)))
    return 0;
  // Zydis adds in 64 bits; the CPU then cuts.
  if (insn.code_size == CodeSize::bits64 && insn.operand_bytes == 2 && zi.operand_count_visible &&
      operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operands[0].imm.is_relative) {
    const u64 next = address + insn.length;
    operands[0].imm.value.s = static_cast<i64>(((next + static_cast<u64>(operands[0].imm.value.s)) & 0xffff) - next);
  }
  if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &zi, operands, zi.operand_count_visible, buffer, size,
                                                    address, nullptr)))
    return 0;
  return std::strlen(buffer);
}

}  // namespace trapline::isa
