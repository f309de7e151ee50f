// FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in its four formats (Intel SDM Vol. 1 figures 8-9 to 8-12). The
// host computes the full tag word; the pointers are the guest's.
#include <cstring>

#include "cpu/fpu_state.h"

namespace trapline::cpu {

namespace {

// The host's format in 64-bit mode: 32-bit protected mode.
struct Environment {
  u32 fcw, fsw, ftw, fip, fcs_fop, fdp, fds;
};
static_assert(sizeof(Environment) == 28);
struct Image {
  Environment env;
  u8 st[80];
};
static_assert(sizeof(Image) == 108);

constexpr unsigned kStackBytes = 80;

struct Format {
  bool narrow;  // 16-bit
  bool real;    // real-address or virtual-8086 mode: pointers are linear
  unsigned bytes() const { return narrow ? 14 : 28; }
  unsigned alignment() const { return narrow ? 2 : 4; }
};

Format format_of(const Vcpu& cpu, const isa::Insn& insn) {
  return {insn.mem.bytes == 14 || insn.mem.bytes == 94, cpu.mode == Mode::real || cpu.mode == Mode::vm86};
}

// Bits 15:0 and 19:16 or 31:16 of a real-mode pointer: selector * 16 + offset.
u32 real_pointer(u16 selector, u64 offset) { return (u32{selector} << 4) + static_cast<u32>(offset); }

void compose(const Vcpu& cpu, Format f, const Environment& host, u8* out) {
  const X87State& x = cpu.x87;
  const u32 ip = f.real ? real_pointer(x.fcs, x.fip) : static_cast<u32>(x.fip);
  const u32 dp = f.real ? real_pointer(x.fds, x.fdp) : static_cast<u32>(x.fdp);
  const u16 fcs = x87_selectors_deprecated() ? 0 : x.fcs, fds = x87_selectors_deprecated() ? 0 : x.fds;
  if (f.narrow) {
    const u16 words[7] = {
        static_cast<u16>(host.fcw),
        static_cast<u16>(host.fsw),
        static_cast<u16>(host.ftw),
        static_cast<u16>(ip),
        f.real ? static_cast<u16>((ip >> 16 & 15) << 12 | x.fop) : fcs,
        static_cast<u16>(dp),
        f.real ? static_cast<u16>((dp >> 16 & 15) << 12) : fds,
    };
    std::memcpy(out, words, sizeof words);
    return;
  }
  constexpr u32 kReserved = 0xffff0000;  // stored as ones
  const u32 dwords[7] = {
      host.fcw | kReserved,
      host.fsw | kReserved,
      host.ftw | kReserved,
      f.real ? kReserved | (ip & 0xffff) : ip,
      f.real ? (ip >> 16) << 12 | x.fop : static_cast<u32>(x.fop) << 16 | fcs,
      f.real ? kReserved | (dp & 0xffff) : dp,
      f.real ? (dp >> 16) << 12 : kReserved | fds,
  };
  std::memcpy(out, dwords, sizeof dwords);
}

Environment parse(Vcpu& cpu, Format f, const u8* in) {
  X87State& x = cpu.x87;
  Environment e{};
  x.fcs = x.fds = 0;
  if (f.narrow) {
    u16 w[7];
    std::memcpy(w, in, sizeof w);
    e.fcw = w[0], e.fsw = w[1], e.ftw = w[2];
    x.fip = f.real ? w[3] | static_cast<u32>(w[4] >> 12) << 16 : w[3];
    x.fdp = f.real ? w[5] | static_cast<u32>(w[6] >> 12) << 16 : w[5];
    x.fop = f.real ? w[4] & 0x7ff : 0;
    if (!f.real) x.fcs = w[4], x.fds = w[6];
    return e;
  }
  u32 d[7];
  std::memcpy(d, in, sizeof d);
  e.fcw = d[0] & 0xffff, e.fsw = d[1] & 0xffff, e.ftw = d[2] & 0xffff;
  x.fip = f.real ? (d[3] & 0xffff) | (d[4] >> 12 & 0xffff) << 16 : d[3];
  x.fdp = f.real ? (d[5] & 0xffff) | (d[6] >> 12 & 0xffff) << 16 : d[5];
  x.fop = static_cast<u16>((f.real ? d[4] : d[4] >> 16) & 0x7ff);
  if (!f.real) x.fcs = static_cast<u16>(d[4]), x.fds = static_cast<u16>(d[6]);
  return e;
}

// The checks of the two that wait for exceptions. Other than next: not now.
Outcome may_load(Vcpu& cpu) {
  if (!check_unit(cpu, Unit::x87)) return Outcome::fault;
  return x87_pending(cpu) ? x87_error(cpu) : Outcome::next;
}

// Readies the host's unit for a load that replaces all but, with FLDENV, the registers.
void unpark_to_load(Vcpu& cpu) {
  if (x87_pending(cpu)) x87_initialize(cpu, false);  // CR0.NE = 0 ignores it; the host's FLDENV would not
  x87_unpark(cpu);
}

}  // namespace

namespace sem {

Outcome fnstenv(Vcpu& cpu, const isa::Insn& insn) {
  if (!check_unit(cpu, Unit::x87)) return Outcome::fault;
  const Format f = format_of(cpu, insn);
  const Area area{cpu, insn};
  if (!area.checked(f.alignment(), Access::write) || !area.probe_write(0, f.bytes())) return Outcome::fault;
  x87_unpark(cpu);
  Environment host;
  asm volatile("fnstenv %0" : "=m"(host));  // and masks all exceptions
  u8 out[28];
  compose(cpu, f, host, out);
  return area.write(0, out, f.bytes()) ? Outcome::next : Outcome::fault;
}

Outcome fldenv(Vcpu& cpu, const isa::Insn& insn) {
  if (const Outcome o = may_load(cpu); o != Outcome::next) return o;
  const Format f = format_of(cpu, insn);
  u8 in[28];
  const Area area{cpu, insn};
  if (!area.checked(f.alignment(), Access::read) || !area.read(0, in, f.bytes())) return Outcome::fault;
  unpark_to_load(cpu);
  const Environment e = parse(cpu, f, in);
  asm volatile("fldenv %0" ::"m"(e) : "memory");
  x87_update_ferr(cpu);
  return Outcome::next;
}

Outcome fnsave(Vcpu& cpu, const isa::Insn& insn) {
  if (!check_unit(cpu, Unit::x87)) return Outcome::fault;
  const Format f = format_of(cpu, insn);
  const Area area{cpu, insn};
  if (!area.checked(f.alignment(), Access::write) || !area.probe_write(0, f.bytes() + kStackBytes))
    return Outcome::fault;
  x87_unpark(cpu);
  Image host;
  asm volatile("fnsave %0" : "=m"(host));  // and initializes
  u8 out[sizeof(Image)];
  compose(cpu, f, host.env, out);
  std::memcpy(out + f.bytes(), host.st, kStackBytes);
  x87_initialize(cpu, false);
  return area.write(0, out, f.bytes() + kStackBytes) ? Outcome::next : Outcome::fault;
}

Outcome frstor(Vcpu& cpu, const isa::Insn& insn) {
  if (const Outcome o = may_load(cpu); o != Outcome::next) return o;
  const Format f = format_of(cpu, insn);
  u8 in[sizeof(Image)];
  const Area area{cpu, insn};
  if (!area.checked(f.alignment(), Access::read) || !area.read(0, in, f.bytes() + kStackBytes)) return Outcome::fault;
  unpark_to_load(cpu);
  Image host;
  host.env = parse(cpu, f, in);
  std::memcpy(host.st, in + f.bytes(), kStackBytes);
  asm volatile("frstor %0" ::"m"(host) : "memory");
  x87_update_ferr(cpu);
  return Outcome::next;
}

}  // namespace sem

}  // namespace trapline::cpu
