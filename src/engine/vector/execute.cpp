// The run-time half of the vector unit. Memory operands are handed to the thunk as host pointers when the TLB has them
// whole and plain (page offsets agree, so alignment does too); else they pass through a scratch line.
#include <immintrin.h>

#include "cpu/fpu.h"
#include "engine/vector/run.h"

namespace trapline::engine {

namespace vector {

using cpu::Outcome;
using cpu::Vcpu;

namespace {

constexpr u32 kHostMxcsr = 0x1f80;  // what the rest of the process runs with: all masked, round to nearest
constexpr u32 kAllMasked = 0x1f80;
constexpr u32 kNotFlags = 0xffc0;

// What must hold of CR0, CR4 and XCR0 before cpu::check_unit need not be asked. By cpu::Unit.
struct Requirement {
  u64 cr0_clear, cr4_set, xcr0_set;
  bool protected_mode;
};
constexpr Requirement kRequirements[] = {
    {cpu::cr0::em | cpu::cr0::ts, 0, 0, false},                 // x87
    {cpu::cr0::em | cpu::cr0::ts, 0, 0, false},                 // mmx
    {cpu::cr0::em | cpu::cr0::ts, cpu::cr4::osfxsr, 0, false},  // sse
    {cpu::cr0::ts, cpu::cr4::osxsave, 0x6, true},               // avx
    {cpu::cr0::ts, cpu::cr4::osxsave, 0xe6, true},              // avx512
    {0, 0, 0, false},                                           // none
};

inline bool ready(const Vcpu& cpu, u8 unit) {
  const Requirement& r = kRequirements[unit];
  return (cpu.cr0 & r.cr0_clear) == 0 && (cpu.cr4 & r.cr4_set) == r.cr4_set && (cpu.xcr0 & r.xcr0_set) == r.xcr0_set &&
         (!r.protected_mode || cpu.mode >= cpu::Mode::protected16);
}

inline u16 fnstsw() {
  u16 sw;
  asm volatile("fnstsw %0" : "=a"(sw));
  return sw;
}
inline u16 fnstcw() {
  u16 cw;
  asm volatile("fnstcw %0" : "=m"(cw));
  return cw;
}
constexpr u16 kErrorSummary = 0x80, kBusy = 0x8000;
constexpr u16 kExceptions = 0x3f, kPrecision = 0x20;

// FLD and FSTP of ten bytes, FBLD and FBSTP are accesses of eight bytes and two, each with an address as wide as
// addresses are. Not `apart`: one access, as of all other operands. Else where the two bytes lie, at the other end of memory.
struct Tail {
  Gva linear;
  bool apart = false, faults = false;
};
Tail tail_of(Vcpu& cpu, const isa::Insn& insn, unsigned size, cpu::Access access) {
  if (size != 10 || insn.mem.address_bytes == 8) [[likely]]
    return {};
  const u64 offset = effective(cpu, insn), tail = cpu::part_address(insn.mem, offset, 8);
  Tail t;
  t.apart = tail < offset;
  t.faults = t.apart && !to_linear(cpu, insn.mem.seg, tail, 2, access, t.linear);
  return t;
}

bool read_split(Vcpu& cpu, const isa::Insn& insn, Gva linear, const Tail& tail, void* out) {
  return read_slow(cpu, insn.mem.seg, linear, out, 8) && !tail.faults &&
         read_slow(cpu, insn.mem.seg, tail.linear, static_cast<u8*>(out) + 8, 2);
}

bool probe_store(Vcpu& cpu, const isa::Insn& insn, Gva linear, unsigned size) {
  const Tail tail = tail_of(cpu, insn, size, cpu::Access::write);
  if (!tail.apart) [[likely]]
    return probe(cpu, insn.mem.seg, linear, size, cpu::Access::write);
  return probe(cpu, insn.mem.seg, linear, 8, cpu::Access::write) && !tail.faults &&
         probe(cpu, insn.mem.seg, tail.linear, 2, cpu::Access::write);
}

bool write_all(Vcpu& cpu, const isa::Insn& insn, Gva linear, const void* in, unsigned size) {
  const Tail tail = tail_of(cpu, insn, size, cpu::Access::write);
  if (!tail.apart) [[likely]]
    return write_slow(cpu, insn.mem.seg, linear, in, size);
  return probe_store(cpu, insn, linear, size) && write_slow(cpu, insn.mem.seg, linear, in, 8) &&
         write_slow(cpu, insn.mem.seg, tail.linear, static_cast<const u8*>(in) + 8, 2);
}

bool read_checked(Vcpu& cpu, const isa::Insn& insn, Gva linear, void* out, unsigned size) {
  if (!vector_aligned(cpu, insn, linear, size)) return false;
  if (const Tail tail = tail_of(cpu, insn, size, cpu::Access::read); tail.apart) [[unlikely]]
    return read_split(cpu, insn, linear, tail, out);
  if (amd(cpu) || !is_half_conversion(insn)) [[likely]]
    return read_slow(cpu, insn.mem.seg, linear, out, size);
  const cpu::AlignmentUnchecked unchecked{cpu};
  return read_slow(cpu, insn.mem.seg, linear, out, size);
}
bool write_checked(Vcpu& cpu, const isa::Insn& insn, Gva linear, const void* in, unsigned size) {
  if (!vector_aligned(cpu, insn, linear, size)) return false;
  if (amd(cpu) || !is_half_conversion(insn)) [[likely]]
    return write_all(cpu, insn, linear, in, size);
  const cpu::AlignmentUnchecked unchecked{cpu};
  return write_slow(cpu, insn.mem.seg, linear, in, size);
}

Outcome load(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  Gva linear;
  if (!to_linear(cpu, insn.mem.seg, effective(cpu, insn), op.mem_bytes, cpu::Access::read, linear)) [[unlikely]]
    return Outcome::fault;
  if (linear.raw & op.align_mask) [[unlikely]]
    return cpu.raise_gp();
  if (u8* host = tlb_lookup(cpu, linear, op.mem_bytes, cpu.need_read)) [[likely]]
    return run(cpu, op, host);
  alignas(64) u8 scratch[64];
  if (!read_checked(cpu, insn, linear, scratch, op.mem_bytes)) return Outcome::fault;
  return run(cpu, op, scratch);
}

// FST and kin: an unmasked exception other than precision leaves memory alone (SDM Vol. 1 8.5).
bool x87_stored(const VectorOp& op) {
  if (!(op.flags & flag::pointers)) return true;
  return (fnstsw() & ~fnstcw() & kExceptions & ~kPrecision) == 0;
}

// With an exception unmasked only the execution tells whether there will be a store that can fault: have a way back.
Outcome store_x87_unmasked(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op, Gva linear) {
  x87_park(cpu);
  const cpu::X87State before = cpu.x87;
  x87_unpark(cpu);
  alignas(64) u8 scratch[64];
  const Outcome o = run(cpu, op, scratch);
  if (o != Outcome::next || !x87_stored(op)) return o;
  if (write_all(cpu, insn, linear, scratch, op.mem_bytes)) return o;
  x87_park(cpu);
  cpu.x87 = before;
  return Outcome::fault;
}

// The segment refuses the store. Intel's processors execute first what can end without one: a conversion's #XM comes
// before the segment's fault, and an unmasked x87 exception leaves nothing to store.
Outcome refused_store(Vcpu& cpu, const VectorOp& op) {
  if (amd(cpu)) return Outcome::fault;
  const bool unmasked = op.flags & flag::pointers && (fnstcw() & kExceptions) != kExceptions;
  if (!unmasked && !(op.flags & flag::mxcsr)) return Outcome::fault;
  const cpu::Fault fault = cpu.fault;
  const u32 mxcsr = cpu.vec.mxcsr;
  cpu::X87State before;
  if (unmasked) {
    x87_park(cpu);
    before = cpu.x87;
    x87_unpark(cpu);
  }
  alignas(64) u8 scratch[64];
  const Outcome o = run(cpu, op, scratch);
  if (o != Outcome::next || (unmasked && !x87_stored(op))) return o;
  cpu.vec.mxcsr = mxcsr;
  if (unmasked) {
    x87_park(cpu);
    cpu.x87 = before;
  }
  cpu.fault = fault;
  return Outcome::fault;
}

Outcome store(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  Gva linear;
  if (!to_linear(cpu, insn.mem.seg, effective(cpu, insn), op.mem_bytes, cpu::Access::write, linear)) [[unlikely]]
    return refused_store(cpu, op);
  if (linear.raw & op.align_mask) [[unlikely]]
    return cpu.raise_gp();
  if (u8* host = tlb_lookup(cpu, linear, op.mem_bytes, cpu.need_write)) [[likely]]
    return run(cpu, op, host);
  // AMD's processors look at the page before at the value: what the store raises comes before what its operand does.
  if (amd(cpu) && !(vector_aligned(cpu, insn, linear, op.mem_bytes) && probe_store(cpu, insn, linear, op.mem_bytes)))
    return Outcome::fault;
  if (op.flags & flag::pointers && (fnstcw() & kExceptions) != kExceptions)
    return store_x87_unmasked(cpu, insn, op, linear);
  // x87 pops must not happen when the store faults.
  if (op.flags & flag::x87 && !probe_store(cpu, insn, linear, op.mem_bytes)) return Outcome::fault;
  const u32 mxcsr = cpu.vec.mxcsr;
  alignas(64) u8 scratch[64];
  const Outcome o = run(cpu, op, scratch);
  if (o != Outcome::next || write_checked(cpu, insn, linear, scratch, op.mem_bytes)) return o;
  cpu.vec.mxcsr = mxcsr;  // VCVTPS2PH: #XM comes before the store's faults, flags come after
  return Outcome::fault;
}

Outcome dispatch(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  switch (static_cast<Kind>(op.kind)) {
    case Kind::reg:
      return run(cpu, op, nullptr);
    case Kind::load:
      return load(cpu, insn, op);
    case Kind::store:
      return store(cpu, insn, op);
    case Kind::nothing:
      return Outcome::next;
    case Kind::gather:
      return execute_gather(cpu, insn, op);
    case Kind::scatter:
      return execute_scatter(cpu, insn, op);
    default:
      return execute_masked(cpu, insn, op);
  }
}

void note_pointers(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  cpu.x87.fip = cpu.rip;
  cpu.x87.fcs = cpu.segment(isa::Seg::cs).selector;
  if (op.flags & flag::fdp_on_exception_only && !(fnstsw() & kErrorSummary)) return;
  cpu.x87.fop = op.fop;
  if (op.mem_bytes == 0) return;
  cpu.x87.fdp = effective(cpu, insn);
  cpu.x87.fds = cpu.segment(insn.mem.seg).selector;
}

Outcome dispatch_x87(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const Outcome o = dispatch(cpu, insn, op);
  if (o == Outcome::next && op.flags & flag::pointers) note_pointers(cpu, insn, op);
  return o;
}

// CR0.NE = 0 and the exception has been reported to IRQ 13: as with IGNNE# asserted the instruction runs in spite of
// what is pending (SDM Vol. 3A 2.5, CR0.NE). For that its mask bits are set
// meanwhile; the summary bits, which follow from flags and masks, are gone then and come back with the guest's mask.
Outcome dispatch_ignoring(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const auto control = [&]() -> u16& { return *reinterpret_cast<u16*>(cpu.x87.image); };
  const auto status = [&]() -> u16& { return *reinterpret_cast<u16*>(cpu.x87.image + 2); };
  x87_park(cpu);
  const u16 guest = control();
  control() |= kExceptions;
  const u16 masked = control();
  x87_unpark(cpu);
  const Outcome o = dispatch_x87(cpu, insn, op);
  x87_park(cpu);
  if (control() == masked) control() = guest;  // else: FLDCW gave it a new one
  if (status() & ~control() & kExceptions) status() |= kErrorSummary | kBusy;
  return o;
}

__attribute__((noinline)) Outcome execute_x87(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  if (!cpu.x87.live) [[unlikely]]
    x87_unpark(cpu);
  if (op.flags & flag::waits && fnstsw() & kErrorSummary) [[unlikely]] {
    const Outcome o = cpu::x87_error(cpu);
    return o == Outcome::next ? dispatch_ignoring(cpu, insn, op) : o;
  }
  if (cpu.x87.ferr) [[unlikely]]
    cpu::x87_update_ferr(cpu);
  return dispatch_x87(cpu, insn, op);
}

}  // namespace

namespace {

// Bytes of an element that a compressing store packs; 0: it is none.
u64 compressed_element(const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
      return 1;
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
      return 2;
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
      return 4;
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
      return 8;
    default:
      return 0;
  }
}

constexpr u8 kZen5 = 0x1a;  // family

}  // namespace

bool vector_aligned(Vcpu& cpu, const isa::Insn& insn, Gva linear, unsigned size) {
  if (!alignment_checks(cpu) || size < 16 || !amd(cpu) || (linear.raw & 15) == 0 || !in_reach(cpu, linear)) return true;
  // Zen 4 looks at the element of a compressing store even without a mask.
  if (const u64 element = compressed_element(insn); element && cpu.cpuid && cpu.cpuid->family() < kZen5)
    if ((linear.raw & (element - 1)) == 0) return true;
  return cpu.raise(cpu::Vector::ac) == Outcome::next;
}

// All exceptions masked: the guest's MXCSR is loaded as it is, sticky flags included, so the result needs no merging.
// Unmasked ones: the same, and the host raises #XM exactly where the guest's CPU would; the signal handler reports it.
Outcome run_with_mxcsr(Vcpu& cpu, const VectorOp& op, void* memory) {
  const u32 guest = cpu.vec.mxcsr & 0xffff;  // a reserved bit would fault here
  _mm_setcsr(guest);
  const u64 cause = thunk_of(op)(&cpu, memory);
  if (cause != 0) [[unlikely]] {
    _mm_setcsr(kHostMxcsr);
    return trapped(cpu, cause);
  }
  cpu.vec.mxcsr = _mm_getcsr();
  if ((guest & kNotFlags) != kAllMasked) _mm_setcsr(kHostMxcsr);
  return Outcome::next;
}

Outcome trapped(Vcpu& cpu, u64 cause) {
  if (static_cast<Trap>(cause & 0xff) == Trap::protection) return cpu.raise_gp();
  if (static_cast<Trap>(cause & 0xff) == Trap::illegal) return cpu.raise_ud();
  cpu.vec.mxcsr = static_cast<u32>(cause >> 32);
  return cpu.raise(cpu.cr4 & cpu::cr4::osxmmexcpt ? cpu::Vector::xm : cpu::Vector::ud);
}

}  // namespace vector

cpu::Outcome VectorUnit::execute(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  if (!vector::ready(cpu, op.unit)) [[unlikely]]
    if (!cpu::check_unit(cpu, static_cast<cpu::Unit>(op.unit))) return cpu::Outcome::fault;
  if (op.flags & vector::flag::x87) return vector::execute_x87(cpu, insn, op);
  return vector::dispatch(cpu, insn, op);
}

}  // namespace trapline::engine
