// The x87 and MMX registers: in the host's x87 unit while `live`, in an FXSAVE image otherwise. Intel SDM Vol. 1
// chapter 8, 10.5.1.
//
// FIP, FDP and FOP of the host are never shown to the guest: they would be host addresses. The guest's are in X87State.
#include <cpuid.h>

#include <cstring>

#include "cpu/fpu_state.h"

namespace trapline::cpu {

namespace {

// Places in the image.
constexpr unsigned kFcw = 0, kFsw = 2, kFtw = 4, kFop = 6, kFip = 8, kFdp = 16, kMxcsr = 24, kRegisters = 32;
constexpr u16 kInitialFcw = 0x37f;
constexpr u16 kSummary = 0x80, kBusy = 0x8000, kExceptions = 0x3f;

template <class T>
T get(const u8* image, unsigned at) {
  T v;
  std::memcpy(&v, image + at, sizeof v);
  return v;
}
template <class T>
void put(u8* image, unsigned at, T v) {
  std::memcpy(image + at, &v, sizeof v);
}

struct alignas(16) FxArea {
  u8 bytes[512];
};

void host_fxsave(FxArea& a) { asm volatile("fxsave64 %0" : "=m"(a)); }

// Brings `image` up to date; the registers stay live.
void snapshot(Vcpu& cpu) {
  if (!cpu.x87.live) return;
  FxArea a;
  host_fxsave(a);
  std::memcpy(cpu.x87.image, a.bytes, kX87ImageBytes);
}

// AMD's processors store FOP, FIP and FDP only while an unmasked exception is pending, zeros else, and do not count the
// registers as in use for their sake (APM Vol. 2 11.4.4). FNSTENV shows them always.
bool saves_pointers(const Vcpu& cpu) {
  return cpu.vendor() == isa::Vendor::intel || (get<u16>(cpu.x87.image, kFsw) & kSummary);
}

// With the XMM registers of the image, which need not be those of now.
void host_fxrstor(const FxArea& a) {
  asm volatile("fxrstor64 %0" ::"m"(a)
               : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                 "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

// How many bits of FIP and FDP the processor keeps; the highest one is repeated above. Neither manual says, CPUID's
// linear addresses may be narrower, and vendors differ. So the host is asked what it makes of single bits.
struct PointerBits {
  unsigned fip = 48, fdp = 48;
};

PointerBits measure_pointer_bits() {
  PointerBits bits;
  FxArea saved, a;
  host_fxsave(saved);
  for (unsigned bit = 48; bit < 64; bit++) {
    a = saved;
    put<u16>(a.bytes, kFcw, kInitialFcw & ~1);      // an unmasked invalid operation,
    put<u16>(a.bytes, kFsw, kSummary | kBusy | 1);  // pending: else AMD's would store zeros
    put<u64>(a.bytes, kFip, u64{1} << bit);
    put<u64>(a.bytes, kFdp, u64{1} << bit);
    host_fxrstor(a);
    host_fxsave(a);
    if (get<u64>(a.bytes, kFip)) bits.fip = bit + 1;
    if (get<u64>(a.bytes, kFdp)) bits.fdp = bit + 1;
  }
  host_fxrstor(saved);
  return bits;
}

const PointerBits& pointer_bits() {
  static const PointerBits bits = measure_pointer_bits();
  return bits;
}

u64 extended(u64 v, unsigned bits) {
  return bits >= 64 ? v : static_cast<u64>(static_cast<i64>(v << (64 - bits)) >> (64 - bits));
}

// The image holds ST(0) first. With TOP going to 0 the registers stay where they are and are numbered anew.
void clear_top(u8* image) {
  const unsigned top = get<u16>(image, kFsw) >> 11 & 7;
  u8 before[128];
  std::memcpy(before, image + kRegisters, sizeof before);
  for (unsigned i = 0; i < 8; i++) std::memcpy(image + kRegisters + (i + top) % 8 * 16, before + i * 16, 16);
  put<u16>(image, kFsw, static_cast<u16>(get<u16>(image, kFsw) & ~(7u << 11)));
}

// The registers in the host are of no more use. FNINIT leaves no unmasked exception pending for anyone else.
void abandon(Vcpu& cpu) {
  if (!cpu.x87.live) return;
  asm volatile("fninit" ::: "memory");
  cpu.x87.live = false;
}

}  // namespace

bool x87_selectors_deprecated() {
  static const bool value = [] {
    u32 a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 13);
  }();
  return value;
}

void x87_unpark(Vcpu& cpu) {
  if (cpu.x87.live) return;
  FxArea a;
  host_fxsave(a);  // FXRSTOR loads XMM and MXCSR too: give them what they have
  std::memcpy(a.bytes, cpu.x87.image, kFop);
  std::memset(a.bytes + kFop, 0, kMxcsr - kFop);
  std::memcpy(a.bytes + kRegisters, cpu.x87.image + kRegisters, kX87ImageBytes - kRegisters);
  asm volatile("fxrstor64 %0" ::"m"(a) : "memory");
  cpu.x87.live = true;
}

void x87_park(Vcpu& cpu) {
  snapshot(cpu);
  abandon(cpu);
}

bool x87_pending(Vcpu& cpu) {
  u16 sw = get<u16>(cpu.x87.image, kFsw);
  if (cpu.x87.live) asm volatile("fnstsw %0" : "=a"(sw));
  return sw & kSummary;
}

void x87_store_image(Vcpu& cpu, u8 (&out)[kX87ImageBytes], bool wide) {
  snapshot(cpu);
  const X87State& x = cpu.x87;
  std::memcpy(out, x.image, kFop);
  std::memcpy(out + kRegisters, x.image + kRegisters, kX87ImageBytes - kRegisters);
  if (!saves_pointers(cpu)) {
    std::memset(out + kFop, 0, kMxcsr - kFop);
    return;
  }
  put<u16>(out, kFop, x.fop);
  if (wide) {
    put<u64>(out, kFip, x.fip);
    put<u64>(out, kFdp, x.fdp);
  } else {
    put<u64>(out, kFip, (x.fip & 0xffffffff) | (x87_selectors_deprecated() ? 0 : u64{x.fcs} << 32));
    put<u64>(out, kFdp, (x.fdp & 0xffffffff) | (x87_selectors_deprecated() ? 0 : u64{x.fds} << 32));
  }
}

void x87_load_image(Vcpu& cpu, const u8 (&in)[kX87ImageBytes], bool wide) {
  abandon(cpu);
  X87State& x = cpu.x87;
  // What the hardware makes of reserved bits, and of ES and B, which follow from flags and masks.
  const u16 fcw = static_cast<u16>((get<u16>(in, kFcw) & 0x1f3f) | 0x40);
  u16 fsw = static_cast<u16>(get<u16>(in, kFsw) & ~(kSummary | kBusy));
  if (fsw & ~fcw & kExceptions) fsw |= kSummary | kBusy;
  put<u16>(x.image, kFcw, fcw);
  put<u16>(x.image, kFsw, fsw);
  put<u16>(x.image, kFtw, in[kFtw]);
  for (unsigned r = 0; r < 8; r++) {
    std::memcpy(x.image + kRegisters + r * 16, in + kRegisters + r * 16, 10);
    std::memset(x.image + kRegisters + r * 16 + 10, 0, 6);
  }
  x.fop = get<u16>(in, kFop) & 0x7ff;
  const PointerBits& bits = pointer_bits();
  x.fip = wide ? extended(get<u64>(in, kFip), bits.fip) : get<u32>(in, kFip);
  x.fdp = wide ? extended(get<u64>(in, kFdp), bits.fdp) : get<u32>(in, kFdp);
  x.fcs = wide ? 0 : get<u16>(in, kFip + 4);
  x.fds = wide ? 0 : get<u16>(in, kFdp + 4);
  x87_update_ferr(cpu);
}

Outcome x87_error(Vcpu& cpu) {
  X87State& x = cpu.x87;
  if (cpu.cr0 & cr0::ne) return cpu.raise(Vector::mf);
  if (x.ferr || cpu.index != 0) return Outcome::next;  // the board's wire is the first processor's
  x.ferr = true;
  if (cpu.bus) cpu.bus->numeric_error(cpu);
  return cpu.sys_flags & flag::if_ ? Outcome::repeat : Outcome::next;
}

void x87_update_ferr(Vcpu& cpu) {
  if (cpu.x87.ferr && !x87_pending(cpu)) cpu.x87.ferr = false;
}

void x87_initialize(Vcpu& cpu, bool clear_registers) {
  X87State& x = cpu.x87;
  x.fip = x.fdp = 0;
  x.fop = x.fcs = x.fds = 0;
  x.ferr = false;
  if (x.live && !clear_registers) {
    asm volatile("fninit" ::: "memory");
    return;
  }
  abandon(cpu);
  if (!clear_registers) clear_top(x.image);
  std::memset(x.image, 0, clear_registers ? kX87ImageBytes : kRegisters);
  put<u16>(x.image, kFcw, kInitialFcw);
}

bool x87_is_initial(Vcpu& cpu) {
  snapshot(cpu);
  const X87State& x = cpu.x87;
  if (saves_pointers(cpu) && (x.fip | x.fdp | x.fop | x.fcs | x.fds)) return false;
  if (get<u16>(x.image, kFcw) != kInitialFcw || get<u16>(x.image, kFsw) != 0 || x.image[kFtw] != 0) return false;
  u64 registers = 0;  // without a way out: it is vector code then
  for (unsigned i = kRegisters; i < kX87ImageBytes; i += sizeof registers) registers |= get<u64>(x.image, i);
  return registers == 0;
}

namespace sem {

Outcome fninit(Vcpu& cpu, const isa::Insn&) {
  if (!check_unit(cpu, Unit::x87)) return Outcome::fault;
  x87_initialize(cpu, false);
  return Outcome::next;
}

Outcome fnclex(Vcpu& cpu, const isa::Insn&) {
  if (!check_unit(cpu, Unit::x87)) return Outcome::fault;
  if (cpu.x87.live)
    asm volatile("fnclex" ::: "memory");
  else
    put<u16>(cpu.x87.image, kFsw, get<u16>(cpu.x87.image, kFsw) & 0x7f00);
  x87_update_ferr(cpu);
  return Outcome::next;
}

Outcome fwait(Vcpu& cpu, const isa::Insn&) {
  if ((cpu.cr0 & (cr0::mp | cr0::ts)) == (cr0::mp | cr0::ts)) return cpu.raise(Vector::nm);
  return x87_pending(cpu) ? x87_error(cpu) : Outcome::next;
}

Outcome emms(Vcpu& cpu, const isa::Insn&) {
  if (!check_unit(cpu, Unit::mmx)) return Outcome::fault;
  if (x87_pending(cpu)) {
    if (const Outcome o = x87_error(cpu); o != Outcome::next) return o;
    x87_park(cpu);
  }
  if (cpu.x87.live) {
    asm volatile("emms" ::: "memory");
  } else {  // as every MMX instruction it also sets TOP to 0
    clear_top(cpu.x87.image);
    put<u16>(cpu.x87.image, kFtw, 0);
  }
  return Outcome::next;
}

}  // namespace sem

}  // namespace trapline::cpu
