// XRSTOR, XRSTORS. Intel SDM Vol. 1 sections 13.8 and 13.12. Everything is read and checked before any register
// changes.
#include <cstring>

#include "cpu/xsave.h"

namespace trapline::cpu {

using namespace xsave;

namespace {

struct Form {
  bool supervisor, wide;
};

Form form_of(ZydisMnemonic m) {
  return {m == ZYDIS_MNEMONIC_XRSTORS || m == ZYDIS_MNEMONIC_XRSTORS64,
          m == ZYDIS_MNEMONIC_XRSTOR64 || m == ZYDIS_MNEMONIC_XRSTORS64};
}

bool offers(const Vcpu& cpu, Feature feature) { return !cpu.cpuid || cpu.cpuid->has(feature); }

bool header_valid(const Vcpu& cpu, const Form& f, const Header& h) {
  const u64 allowed = cpu.xcr0 | (f.supervisor ? cpu.msr.xss : 0);
  for (unsigned i = f.supervisor || h.xcomp_bv & kCompacted ? 0 : 6; i < 6; i++)
    if (h.reserved[i]) return false;
  if (!(h.xcomp_bv & kCompacted)) {
    if (f.supervisor || h.xcomp_bv != 0 || h.reserved[0] != 0) return false;
    return (h.xstate_bv & ~allowed) == 0;
  }
  if (!f.supervisor && !offers(cpu, Feature::xsavec)) return false;
  return (h.xcomp_bv & ~kCompacted & ~allowed) == 0 && (h.xstate_bv & ~(h.xcomp_bv & ~kCompacted)) == 0;
}

struct Loaded {
  u8 x87[kX87ImageBytes];
  const u8* xmm;
  const u8* extended[4];
  u32 mxcsr;
};

struct Room {
  u8 xmm[16 * 16];
  u8 extended[4][kLargest];
};

unsigned place(Component c, u64 xcomp_bv) {
  return xcomp_bv & kCompacted ? compacted_offset(c, xcomp_bv) : standard_offset(c);
}

// False: cpu.fault set.
bool read_components(const Vcpu& cpu, const Area& area, u64 loaded, bool mxcsr, u64 xcomp_bv, Room& room, Loaded& out) {
  if (loaded & bit(x87) && !area.read(0, out.x87, kX87ImageBytes)) return false;
  if (mxcsr && !area.read(kMxcsr, &out.mxcsr, 4)) return false;
  if (loaded & bit(sse) && !area.read(kXmm, room.xmm, vector_registers(cpu) * 16)) return false;
  out.xmm = room.xmm;
  for (unsigned i = 0; i < 4; i++) {
    const Component c = kExtended[i];
    if (!(loaded & bit(c))) continue;
    if (!area.read(place(c, xcomp_bv), room.extended[i], present_bytes(cpu, c))) return false;
    out.extended[i] = room.extended[i];
  }
  return true;
}

// The same of an area that lies in one piece on the host. What is checked is copied: another vCPU may write meanwhile.
void find_components(const u8* at, u64 loaded, u64 xcomp_bv, Loaded& out) {
  if (loaded & bit(x87)) std::memcpy(out.x87, at, sizeof out.x87);
  std::memcpy(&out.mxcsr, at + kMxcsr, sizeof out.mxcsr);
  out.xmm = at + kXmm;
  for (unsigned i = 0; i < 4; i++)
    if (loaded & bit(kExtended[i])) out.extended[i] = at + place(kExtended[i], xcomp_bv);
}

void commit(Vcpu& cpu, const Form& f, u64 requested, u64 loaded, const Loaded& in) {
  if (loaded & bit(x87))
    x87_load_image(cpu, in.x87, f.wide);
  else if (requested & bit(x87))
    x87_initialize(cpu, true);
  if (requested & bit(sse))
    for (unsigned i = 0; i < vector_registers(cpu); i++)
      loaded& bit(sse) ? std::memcpy(cpu.vec.zmm[i], in.xmm + i * 16, 16) : std::memset(cpu.vec.zmm[i], 0, 16);
  for (unsigned i = 0; i < 4; i++) {
    const Component c = kExtended[i];
    if (requested & bit(c)) scatter(cpu, c, loaded & bit(c) ? in.extended[i] : nullptr);
  }
}

}  // namespace

namespace sem {

Outcome xrstor(Vcpu& cpu, const isa::Insn& insn) {
  const Form f = form_of(insn.mnemonic);
  if (!(cpu.cr4 & cr4::osxsave) || (f.supervisor && !offers(cpu, Feature::xsaves))) return cpu.raise_ud();
  if (cpu.cr0 & cr0::ts) return cpu.raise(Vector::nm);
  if (f.supervisor && cpu.cpl != 0) return cpu.raise_gp();
  const Area area{cpu, insn};
  if (!area.aligned(64, Access::read)) return Outcome::fault;
  Header header;
  u8 first;  // as for XSAVE
  if (cpu.vendor() == isa::Vendor::amd && !area.read(0, &first, 1)) return Outcome::fault;
  if (!area.read(kHeader, &header, sizeof header)) return Outcome::fault;
  if (!header_valid(cpu, f, header)) return cpu.raise_gp();

  const u64 asked = (cpu.gpr[isa::rdx] << 32) | (cpu.gpr[isa::rax] & 0xffffffff);
  const u64 requested = asked & (cpu.xcr0 | (f.supervisor ? cpu.msr.xss : 0));
  const u64 loaded = requested & header.xstate_bv;
  const bool compacted = header.xcomp_bv & kCompacted;
  // Standard format: MXCSR is read when SSE or AVX is asked for, whatever XSTATE_BV says.
  const bool mxcsr = compacted ? (loaded & bit(sse)) != 0 : (requested & (bit(sse) | bit(avx))) != 0;
  Loaded in;
  Room room;
  const unsigned bytes = area_bytes(compacted ? header.xcomp_bv & ~kCompacted : loaded, compacted);
  if (const u8* const at = area.whole(bytes, Access::read))
    find_components(at, loaded, header.xcomp_bv, in);
  else if (!read_components(cpu, area, loaded, mxcsr, header.xcomp_bv, room, in))
    return Outcome::fault;
  if (mxcsr && in.mxcsr & ~mxcsr_mask(cpu)) return cpu.raise_gp();
  commit(cpu, f, requested, loaded, in);
  if (mxcsr)
    cpu.vec.mxcsr = in.mxcsr;
  else if (compacted && requested & bit(sse))
    cpu.vec.mxcsr = 0x1f80;
  return Outcome::next;
}

}  // namespace sem

}  // namespace trapline::cpu
