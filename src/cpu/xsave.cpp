// XSAVE, XSAVEOPT, XSAVEC, XSAVES. Intel SDM Vol. 1 sections 13.7, 13.9 to 13.11.
//
// XINUSE is exact: a component is in use when it differs from its initial configuration. The "modified" optimization is
// not made; the manual leaves it to the processor.
#include "cpu/xsave.h"

#include <cstring>

namespace trapline::cpu {

using namespace xsave;

namespace {

struct Form {
  bool optimized = false;  // writes only components in use
  bool compacted = false;
  bool supervisor = false;
  bool wide = false;
};

Form form_of(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_XSAVE64:
      return {.wide = true};
    case ZYDIS_MNEMONIC_XSAVEOPT:
      return {.optimized = true};
    case ZYDIS_MNEMONIC_XSAVEOPT64:
      return {.optimized = true, .wide = true};
    case ZYDIS_MNEMONIC_XSAVEC:
      return {.optimized = true, .compacted = true};
    case ZYDIS_MNEMONIC_XSAVEC64:
      return {.optimized = true, .compacted = true, .wide = true};
    case ZYDIS_MNEMONIC_XSAVES:
      return {.optimized = true, .compacted = true, .supervisor = true};
    case ZYDIS_MNEMONIC_XSAVES64:
      return {.optimized = true, .compacted = true, .supervisor = true, .wide = true};
    default:
      return {};
  }
}

bool offered(const Vcpu& cpu, const Form& f) {
  if (!cpu.cpuid || !f.optimized) return true;
  return cpu.cpuid->has(f.supervisor ? Feature::xsaves : f.compacted ? Feature::xsavec : Feature::xsaveopt);
}

bool xmm_in_use(const Vcpu& cpu) {
  u64 all = 0;  // without a way out: it is vector code then
  for (unsigned i = 0; i < vector_registers(cpu); i++) {
    u64 words[2];
    std::memcpy(words, cpu.vec.zmm[i], sizeof words);
    all |= words[0] | words[1];
  }
  return all != 0;
}

// What one execution writes, collected before the first byte goes out.
struct Image {
  u8 legacy[kHeader];
  Header header = {};
  u8 extended[4][kLargest];
};

struct Piece {
  u64 at;
  const u8* bytes;
  unsigned size;
};

struct Pieces {
  Piece list[16];
  unsigned count = 0;
  void add(u64 at, const void* from, unsigned size) {
    const u8* const bytes = static_cast<const u8*>(from);
    if (size == 0) return;
    if (count > 0 && list[count - 1].at + list[count - 1].size == at &&
        list[count - 1].bytes + list[count - 1].size == bytes)
      list[count - 1].size += size;  // each costs a look-up of its page, twice
    else
      list[count++] = {at, bytes, size};
  }
};

void add_legacy(Vcpu& cpu, const Form& f, u64 saved, bool mxcsr, Image& image, Pieces& out) {
  if (saved & bit(x87)) {
    u8 x[kX87ImageBytes] = {};
    x87_store_image(cpu, x, f.wide);
    std::memcpy(image.legacy, x, sizeof x);
    out.add(0, image.legacy, kMxcsr);
  }
  if (mxcsr) {
    const u32 values[2] = {cpu.vec.mxcsr, mxcsr_mask(cpu)};
    std::memcpy(image.legacy + kMxcsr, values, sizeof values);
    out.add(kMxcsr, image.legacy + kMxcsr, sizeof values);
  }
  if (saved & bit(x87)) out.add(32, image.legacy + 32, kXmm - 32);
  if (saved & bit(sse)) {
    const unsigned n = vector_registers(cpu);
    for (unsigned i = 0; i < n; i++) std::memcpy(image.legacy + kXmm + i * 16, cpu.vec.zmm[i], 16);
    out.add(kXmm, image.legacy + kXmm, n * 16);
  }
}

// What XINUSE says, as far as it is asked for: of SSE always.
u64 components_in_use(Vcpu& cpu, const Form& f, u64 requested) {
  u64 in_use = 0;
  if (requested & bit(x87) && !x87_is_initial(cpu)) in_use |= bit(x87);
  if (xmm_in_use(cpu) || (f.compacted && cpu.vec.mxcsr != 0x1f80)) in_use |= bit(sse);
  for (const Component c : kExtended)
    if (requested & bit(c) && differs(cpu, c)) in_use |= bit(c);
  return in_use;
}

// To an area that lies in one piece on the host, and cannot fault.
void store(Vcpu& cpu, const Form& f, u64 requested, u64 in_use, u64 saved, bool mxcsr, u8* at) {
  if (saved & bit(x87)) {
    u8 x[kX87ImageBytes];
    x87_store_image(cpu, x, f.wide);
    std::memcpy(at, x, kMxcsr);
    std::memcpy(at + 32, x + 32, kXmm - 32);
  }
  if (mxcsr) {
    const u32 values[2] = {cpu.vec.mxcsr, mxcsr_mask(cpu)};
    std::memcpy(at + kMxcsr, values, sizeof values);
  }
  if (saved & bit(sse))
    for (unsigned i = 0, n = vector_registers(cpu); i < n; i++) std::memcpy(at + kXmm + i * 16, cpu.vec.zmm[i], 16);
  for (const Component c : kExtended)
    if (saved & bit(c)) gather(cpu, c, at + (f.compacted ? compacted_offset(c, requested) : standard_offset(c)));
  u64 header[2] = {requested & in_use, kCompacted | requested};
  if (f.compacted) {
    std::memcpy(at + kHeader, header, sizeof header);
  } else {
    u64 before;
    std::memcpy(&before, at + kHeader, sizeof before);
    header[0] |= before & ~requested;
    std::memcpy(at + kHeader, header, sizeof header[0]);
  }
}

// Writes all or, when a page is missing, nothing.
Outcome write_all(const Area& area, const Pieces& p) {
  for (unsigned i = 0; i < p.count; i++)
    if (!area.probe_write(p.list[i].at, p.list[i].size)) return Outcome::fault;
  for (unsigned i = 0; i < p.count; i++)
    if (!area.write(p.list[i].at, p.list[i].bytes, p.list[i].size)) return Outcome::fault;
  return Outcome::next;
}

}  // namespace

namespace sem {

Outcome xsave(Vcpu& cpu, const isa::Insn& insn) {
  const Form f = form_of(insn.mnemonic);
  if (!(cpu.cr4 & cr4::osxsave) || !offered(cpu, f)) return cpu.raise_ud();
  if (cpu.cr0 & cr0::ts) return cpu.raise(Vector::nm);
  if (f.supervisor && cpu.cpl != 0) return cpu.raise_gp();
  const Area area{cpu, insn};
  if (!area.aligned(64, Access::write)) return Outcome::fault;
  const u64 asked = (cpu.gpr[isa::rdx] << 32) | (cpu.gpr[isa::rax] & 0xffffffff);
  const u64 requested = asked & (cpu.xcr0 | (f.supervisor ? cpu.msr.xss : 0));
  // Of two missing pages AMD's processors report the first, whatever is asked for; Intel's the last, by the area's last
  // byte.
  const bool amd = cpu.vendor() == isa::Vendor::amd;
  const unsigned bytes = area_bytes(requested, f.compacted);
  if (!area.probe_write(amd ? 0 : bytes - 1, 1)) return Outcome::fault;
  const u64 in_use = components_in_use(cpu, f, requested);
  const u64 saved = f.optimized ? requested & in_use : requested;

  // In the standard format MXCSR goes with SSE or AVX, asked for is enough; compacted, it is a part of the SSE
  // component.
  const bool mxcsr = f.compacted ? (saved & bit(sse)) != 0 : (requested & (bit(sse) | bit(avx))) != 0;
  if (u8* const at = area.whole(bytes, Access::write)) {
    store(cpu, f, requested, in_use, saved, mxcsr, at);
    return Outcome::next;
  }
  Image image;
  Pieces out;
  add_legacy(cpu, f, saved, mxcsr, image, out);
  for (unsigned i = 0; i < 4; i++) {
    const Component c = kExtended[i];
    if (!(saved & bit(c))) continue;
    gather(cpu, c, image.extended[i]);
    out.add(f.compacted ? compacted_offset(c, requested) : standard_offset(c), image.extended[i],
            present_bytes(cpu, c));
  }
  if (f.compacted) {
    image.header.xstate_bv = requested & in_use;
    image.header.xcomp_bv = kCompacted | requested;
    out.add(kHeader, &image.header, 16);
  } else {
    if (out.count > 0 && out.list[0].at < kHeader && !area.probe_write(out.list[0].at, 1)) return Outcome::fault;
    if (!area.read(kHeader, &image.header.xstate_bv, 8)) return Outcome::fault;
    image.header.xstate_bv = (image.header.xstate_bv & ~requested) | (requested & in_use);
    out.add(kHeader, &image.header, 8);
  }
  return write_all(area, out);
}

}  // namespace sem

}  // namespace trapline::cpu
