// Checks before x87 and vector instructions, MXCSR, and the table of semantics.
#include "cpu/fpu.h"

#include <algorithm>
#include <cstring>

#include "cpu/fpu_state.h"

namespace trapline::cpu {

namespace {

bool deny(Vcpu& cpu, Vector v) {
  cpu.fault = Fault{v, 0, 0, 0};
  return false;
}

bool check_avx(Vcpu& cpu, u64 states) {
  if (cpu.mode == Mode::real || cpu.mode == Mode::vm86) return deny(cpu, Vector::ud);
  if (!(cpu.cr4 & cr4::osxsave) || (cpu.xcr0 & states) != states) return deny(cpu, Vector::ud);
  return !(cpu.cr0 & cr0::ts) || deny(cpu, Vector::nm);
}

}  // namespace

bool check_unit(Vcpu& cpu, Unit unit) {
  switch (unit) {
    case Unit::x87:
      return !(cpu.cr0 & (cr0::em | cr0::ts)) || deny(cpu, Vector::nm);
    case Unit::sse:
      if (!(cpu.cr4 & cr4::osfxsr)) return deny(cpu, Vector::ud);
      [[fallthrough]];
    case Unit::mmx:
      if (cpu.cr0 & cr0::em) return deny(cpu, Vector::ud);
      return !(cpu.cr0 & cr0::ts) || deny(cpu, Vector::nm);
    case Unit::avx:
      return check_avx(cpu, 0x06);  // SSE, AVX
    case Unit::avx512:
      return check_avx(cpu, 0xe6);  // and opmask, ZMM_Hi256, Hi16_ZMM
    case Unit::none:
      break;
  }
  return true;
}

// SDM Vol. 3A table 10-1, RESET column.
void reset_fpu(Vcpu& cpu) {
  cpu.vec = VectorState{};
  x87_initialize(cpu, true);
  cpu.x87.image[0] = 0x40, cpu.x87.image[1] = 0;  // FCW
  cpu.x87.image[4] = 0xff;                        // every register +0.0, tagged as zero: not empty
}

u32 mxcsr_mask(const Vcpu& cpu) {
  const u32 mask = cpu.cpuid ? cpu.cpuid->mxcsr_mask() : 0xffff;
  return mask & 0xffff;
}

// -- Area

bool Area::linear(u64 at, unsigned size, Access access, Gva& out) const {
  return to_linear(cpu, insn.mem.seg, part_address(insn.mem, offset, at), size, access, out);
}

// Bytes to go at once: few, so that segment limits, wraps and faults come where the processor has them; in flat code
// more where one page has them.
unsigned Area::step(u64 at, unsigned size) const {
  const unsigned few = std::min(size, 64u);
  if (insn.mem.address_bytes != 8) {
    const u64 to_end = ~part_address(insn.mem, offset, at) & part_address(insn.mem, 0, ~u64{0});  // but for one
    return to_end < few ? static_cast<unsigned>(to_end) + 1 : few;
  }
  if (!cpu.in_long64()) return few;
  const u64 base = cpu.segment(insn.mem.seg).linear_base;
  return std::max(few, std::min(size, static_cast<unsigned>(kPageSize - ((base + offset + at) & (kPageSize - 1)))));
}

bool Area::read(u64 at, void* out, unsigned size) const {
  for (u8* to = static_cast<u8*>(out); size;) {
    const unsigned n = step(at, size);
    Gva l;
    if (!linear(at, n, Access::read, l)) return false;
    if (const u8* host = tlb_lookup(cpu, l, n, cpu.need_read))
      std::memcpy(to, host, n);
    else if (!read_slow(cpu, insn.mem.seg, l, to, n))
      return false;
    at += n, to += n, size -= n;
  }
  return true;
}

bool Area::write(u64 at, const void* in, unsigned size) const {
  for (const u8* from = static_cast<const u8*>(in); size;) {
    const unsigned n = step(at, size);
    Gva l;
    if (!linear(at, n, Access::write, l)) return false;
    if (u8* host = tlb_lookup(cpu, l, n, cpu.need_write))
      std::memcpy(host, from, n);
    else if (!write_slow(cpu, insn.mem.seg, l, from, n))
      return false;
    at += n, from += n, size -= n;
  }
  return true;
}

bool Area::probe_write(u64 at, unsigned size) const {
  while (size) {
    const unsigned n = step(at, size);
    Gva l;
    if (!linear(at, n, Access::write, l)) return false;
    if (!tlb_lookup(cpu, l, n, cpu.need_write) && !probe(cpu, insn.mem.seg, l, n, Access::write)) return false;
    at += n, size -= n;
  }
  return true;
}

u8* Area::whole(unsigned size, Access access) const {
  Gva first;
  if (!cpu.in_long64() || insn.mem.address_bytes != 8 || !linear(0, 1, access, first)) return nullptr;
  const u32 need = access == Access::read ? cpu.need_read : cpu.need_write;
  const unsigned head = std::min(size, static_cast<unsigned>(kPageSize - first.page_offset()));
  u8* const at = tlb_lookup(cpu, first, head, need);
  if (!at || head == size) return at;
  return tlb_lookup(cpu, first.wrapping_add(head), size - head, need) == at + head ? at : nullptr;
}

bool Area::aligned(u64 alignment, Access access) const {
  Gva at;
  if (!linear(0, 1, access, at)) return false;
  const u64 l = at.raw;
  // AMD's XSAVE family looks at the alignment before at whether the address is canonical.
  if (cpu.vendor() == isa::Vendor::amd && alignment == 64 && l & 63) return cpu.raise_gp() == Outcome::next;
  if (cpu.in_long64() && !canonical(at))
    return cpu.raise(insn.mem.seg == Seg::ss ? Vector::ss : Vector::gp) == Outcome::next;
  if ((l & (alignment - 1)) == 0) return true;
  const bool checks = cpu.vendor() == isa::Vendor::intel || l & 3;
  return cpu.raise(checks && alignment_checks(cpu) ? Vector::ac : Vector::gp) == Outcome::next;
}

bool Area::checked(u64 alignment, Access access) const { return !alignment_checks(cpu) || aligned(alignment, access); }

// -- MXCSR and VZERO*

namespace {

bool is_vex(const isa::Insn& insn) {
  return insn.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR || insn.mnemonic == ZYDIS_MNEMONIC_VSTMXCSR;
}

}  // namespace

namespace sem {

Outcome ldmxcsr(Vcpu& cpu, const isa::Insn& insn) {
  if (!check_unit(cpu, is_vex(insn) ? Unit::avx : Unit::sse)) return Outcome::fault;
  u32 value;
  if (!Area{cpu, insn}.read(0, &value, 4)) return Outcome::fault;
  if (value & ~mxcsr_mask(cpu)) return cpu.raise_gp();
  cpu.vec.mxcsr = value;
  return Outcome::next;
}

Outcome stmxcsr(Vcpu& cpu, const isa::Insn& insn) {
  if (!check_unit(cpu, is_vex(insn) ? Unit::avx : Unit::sse)) return Outcome::fault;
  return Area{cpu, insn}.write(0, &cpu.vec.mxcsr, 4) ? Outcome::next : Outcome::fault;
}

// VZEROUPPER, VZEROALL: registers 0..15, or 0..7 outside 64-bit mode; 16..31 are untouched.
Outcome vzero(Vcpu& cpu, const isa::Insn& insn) {
  if (!check_unit(cpu, Unit::avx)) return Outcome::fault;
  const unsigned from = insn.mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0 : 16;
  for (unsigned i = 0; i < vector_registers(cpu); i++) std::memset(cpu.vec.zmm[i] + from, 0, 64 - from);
  return Outcome::next;
}

}  // namespace sem

namespace {

constexpr auto kFpu = [] {
  std::array<Semantic, ZYDIS_MNEMONIC_MAX_VALUE + 1> table{};
#define NONE nullptr
#define SYSTEM(function) nullptr
#define FPU(function) sem::function
#define BY_OPERANDS nullptr
#define INSN(mnemonic, semantic, ...) table[ZYDIS_MNEMONIC_##mnemonic] = semantic;
#include "isa/traits.inc"
#undef INSN
  return table;
}();

}  // namespace

Semantic find_fpu_semantic(const isa::Insn& insn) { return kFpu[insn.mnemonic]; }

}  // namespace trapline::cpu
