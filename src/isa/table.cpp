// The rows, and from a decoded instruction to its row.
#include "isa/table.h"

#include <vector>

namespace trapline::isa {

namespace {

// The rows' vocabulary. Feature names that are also row names end in an underscore.
using enum Class;
using enum Sensitivity;
using enum Lowering;
using enum Cage;
using enum Effect;
constexpr Feature always = Feature::always, amd = Feature::amd, ia32 = Feature::ia32, iopl = Feature::iopl,
                  compat = Feature::compat, umip = Feature::umip, umip_answers = Feature::umip_answers,
                  pku = Feature::pku, pce = Feature::pce, umip_answers_all = Feature::umip_answers_all,
                  cpuid_off = Feature::cpuid_off, cpuid_faulting = Feature::cpuid_faulting, tsc_off = Feature::tsc_off,
                  fsgsbase = Feature::fsgsbase, rdtscp_ = Feature::rdtscp, rdpid_ = Feature::rdpid,
                  rdpru_ = Feature::rdpru, xsave_ = Feature::xsave, waitpkg = Feature::waitpkg,
                  monitorx_ = Feature::monitorx, serialize_ = Feature::serialize, clzero_ = Feature::clzero,
                  enqcmd_ = Feature::enqcmd, amx_ = Feature::amx, tsx = Feature::tsx, tsx_test = Feature::tsx_test,
                  tsxldtrk = Feature::tsxldtrk, shadow_stack = Feature::shadow_stack, uintr = Feature::uintr,
                  keylocker = Feature::keylocker, ptwrite_ = Feature::ptwrite, lwp = Feature::lwp,
                  padlock_ = Feature::padlock, sgx = Feature::sgx, vmcall_leaves = Feature::vmcall_leaves,
                  vmmcall_leaves = Feature::vmmcall_leaves, hypercall_fixed = Feature::hypercall_fixed;

consteval std::array<Alternative, 5> only(Effect e) { return {{{Feature::always, true, e}}}; }

consteval Example example(CodeSize size, std::string_view hex) {
  Example out{.size = size};
  const auto digit = [](char c) { return static_cast<u8>(c <= '9' ? c - '0' : c - 'a' + 10); };
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.bytes[out.length++] = static_cast<u8>(digit(hex[i]) << 4 | digit(hex[i + 1]));
  return out;
}
consteval Example x64(std::string_view hex) { return example(CodeSize::bits64, hex); }
consteval Example x32(std::string_view hex) { return example(CodeSize::bits32, hex); }

#define MN(name) ZYDIS_MNEMONIC_##name
constexpr Row kRows[] = {
#define ROW(id_, ...) Row{.id = RowId::id_, __VA_ARGS__},
#include "isa/table/rows.inc"
#undef ROW
};
#undef MN

constexpr std::string_view kSlugs[] = {
#define ROW(id_, ...) #id_,
#include "isa/table/rows.inc"
#undef ROW
};

// What a Form looks at, from either kind of decoded instruction.
struct Shape {
  ZydisMnemonic mnemonic;
  bool far = false, lock = false;
  Operand::Kind kind[2] = {Operand::Kind::none, Operand::Kind::none};
  Seg seg[2] = {Seg::none, Seg::none};
  u64 imm = 0;
};

bool matches(Form form, const Shape& s) {
  using Kind = Operand::Kind;
  switch (form) {
    case Form::any:
      return true;
    case Form::to_seg:
    case Form::pop_seg:
      return s.kind[0] == Kind::seg;
    case Form::to_ss:
      return s.kind[0] == Kind::seg && s.seg[0] == Seg::ss;
    case Form::from_seg:
      return s.kind[0] == Kind::seg || s.kind[1] == Kind::seg;
    case Form::from_cs:
      return s.seg[0] == Seg::cs || s.seg[1] == Seg::cs;
    case Form::to_cr:
      return s.kind[0] == Kind::cr;
    case Form::from_cr:
      return s.kind[1] == Kind::cr;
    case Form::to_dr:
      return s.kind[0] == Kind::dr;
    case Form::from_dr:
      return s.kind[1] == Kind::dr;
    case Form::far:
      return s.far;
    case Form::vector_3:
      return s.imm == 3;
    case Form::vector_4:
      return s.imm == 4;
    case Form::vector_80:
      return s.imm == 0x80;
    case Form::lock_prefix:
      return s.lock;
  }
  return false;
}

// Rows by mnemonic, in the table's order: rows[first[m]] to rows[first[m + 1]].
struct Index {
  std::vector<u16> first, rows;
  Index() {
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
      first.push_back(static_cast<u16>(rows.size()));
      if (m == ZYDIS_MNEMONIC_INVALID) continue;
      for (const Row& r : kRows)
        for (ZydisMnemonic of : r.mnemonics)
          if (of == static_cast<ZydisMnemonic>(m)) rows.push_back(static_cast<u16>(r.id));
    }
    first.push_back(static_cast<u16>(rows.size()));
  }
};

const Row* find(const Shape& s) {
  static const Index index;
  const auto mnemonic = static_cast<std::size_t>(s.mnemonic);
  for (unsigned i = index.first[mnemonic]; i < index.first[mnemonic + 1]; i++)
    if (const Row& r = kRows[index.rows[i]]; matches(r.form, s)) return &r;
  return nullptr;
}

// The opcode byte behind legacy prefixes and REX: RET has no operand that tells far from near.
u8 opcode(const Insn& insn) {
  for (unsigned i = 0; i < insn.length; i++) {
    const u8 b = insn.bytes[i];
    const bool prefix = b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || (b >= 0x64 && b <= 0x67) || b == 0xf0 ||
                        b == 0xf2 || b == 0xf3 || (insn.code_size == CodeSize::bits64 && (b & 0xf0) == 0x40);
    if (!prefix) return b;
  }
  return 0;
}

// FF /3 and FF /5, 9A and EA, CA and CB.
bool is_far(const Insn& insn) {
  if (insn.mnemonic == ZYDIS_MNEMONIC_RET) return (opcode(insn) & 0xfe) == 0xca;
  if (insn.mnemonic != ZYDIS_MNEMONIC_CALL && insn.mnemonic != ZYDIS_MNEMONIC_JMP) return false;
  if (insn.op[0].kind == Operand::Kind::far_ptr) return true;
  return insn.op[0].kind == Operand::Kind::mem && insn.op[0].bytes != insn.operand_bytes;
}

Seg segment(ZydisRegister reg) {
  switch (reg) {
    case ZYDIS_REGISTER_CS:
      return Seg::cs;
    case ZYDIS_REGISTER_SS:
      return Seg::ss;
    default:
      return Seg::none;
  }
}

void set_operand(Shape& s, unsigned at, const ZydisDecodedOperand& op) {
  using Kind = Operand::Kind;
  if (op.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && at == 0) s.imm = op.imm.value.u;
  if (op.type != ZYDIS_OPERAND_TYPE_REGISTER) return;
  const ZydisRegisterClass cls = ZydisRegisterGetClass(op.reg.value);
  if (cls == ZYDIS_REGCLASS_SEGMENT) s.kind[at] = Kind::seg, s.seg[at] = segment(op.reg.value);
  if (cls == ZYDIS_REGCLASS_CONTROL) s.kind[at] = Kind::cr;
  if (cls == ZYDIS_REGCLASS_DEBUG) s.kind[at] = Kind::dr;
}

}  // namespace

std::span<const Row> table() { return kRows; }
const Row& row(RowId id) { return kRows[static_cast<u16>(id)]; }
std::string_view slug(RowId id) { return kSlugs[static_cast<u16>(id)]; }

const Row* classify(const Insn& insn) {
  Shape s{.mnemonic = insn.mnemonic, .far = is_far(insn), .lock = insn.lock};
  for (unsigned i = 0; i < 2 && i < insn.operand_count; i++) {
    s.kind[i] = insn.op[i].kind;
    if (s.kind[i] == Operand::Kind::seg) s.seg[i] = static_cast<Seg>(insn.op[i].reg);
  }
  if (s.kind[0] == Operand::Kind::imm) s.imm = insn.imm & 0xff;
  return find(s);
}

const Row* classify(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  Shape s{.mnemonic = insn.mnemonic, .far = insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR};
  s.lock = insn.attributes & ZYDIS_ATTRIB_HAS_LOCK;
  for (unsigned i = 0; i < 2 && i < insn.operand_count_visible; i++) set_operand(s, i, operands[i]);
  s.imm &= 0xff;
  return find(s);
}

Effect effect_on(const Row& r, HostFeatures host) {
  for (const Alternative& a : r.effect)
    if (a.feature != Feature::count && host.has(a.feature) == a.present) return a.effect;
  return Effect::acts;
}

Class class_on(const Row& r, Ring ring, HostFeatures host) {
  const Class cls = in_ring(r, ring).cls;
  if (cls == Class::innocuous) return cls;
  const Effect effect = effect_on(r, host);
  // A page fault is an accident of the page's rights (VMMCALL under KVM on Intel): no trap to build on.
  return is_trap(effect) && effect != Effect::traps_pf ? Class::privileged : Class::critical;
}

}  // namespace trapline::isa
