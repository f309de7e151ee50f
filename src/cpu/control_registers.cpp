// CR0, CR2, CR3, CR4, CR8: the checks of a write and what it flushes. Intel SDM Vol. 3A 2.5 (the bits), 4.10.4.1 (what
// invalidates the TLB), 4.4.1 (PDPTEs), 9.8.5 (entering IA-32e mode); Vol. 2B MOV to and from control registers.
#include "base/trace.h"
#include "cpu/events.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

constexpr u64 kCr0Known =
    cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::nw | cr0::cd | cr0::pg;
constexpr u64 kNoFlush = u64{1} << 63;

bool gp(Vcpu& cpu) {
  static_cast<void>(cpu.raise_gp());
  return false;
}

// Can paging be switched on or off now?
bool may_switch_paging(const Vcpu& cpu, bool on) {
  if (!on) return !cpu.in_long64() && !(cpu.cr4 & cr4::pcide);
  if (!(cpu.efer & efer::lme)) return true;
  const bool tss16 = (cpu.tr.attr & 0xd) == 1;  // 16-bit TSS, busy or not
  return (cpu.cr4 & cr4::pae) && !cpu.segment(Seg::cs).long_mode() && !tss16;
}

bool legacy_pae(const Vcpu& cpu, u64 cr0_value, u64 cr4_value) {
  return (cr0_value & cr0::pg) && (cr4_value & cr4::pae) && !(cpu.efer & efer::lme);
}

u64 cr3_reserved(const Vcpu& cpu) {
  if (!cpu.long_mode_active()) return ~u64{0xffffffff};
  const unsigned bits = cpu.cpuid ? cpu.cpuid->physical_bits() : 46;
  return ~u64{0} << bits;
}

bool write_cr8(Vcpu& cpu, u64 value) {
  if (value > 15) return gp(cpu);
  if (cpu.lapic) cpu.lapic->set_tpr(static_cast<u32>(value << 4));
  interrupts_may_be_open(cpu);
  return true;
}

bool write_control(Vcpu& cpu, unsigned number, u64 value) {
  switch (number) {
    case 0:
      return write_cr0(cpu, value);
    case 2:
      cpu.cr2 = value;
      return true;
    case 3:
      return write_cr3(cpu, value);
    case 4:
      return write_cr4(cpu, value);
    default:
      return write_cr8(cpu, value);
  }
}

u64 read_control(const Vcpu& cpu, unsigned number) {
  switch (number) {
    case 0:
      return cpu.cr0;
    case 2:
      return cpu.cr2;
    case 3:
      return cpu.cr3;
    case 4:
      return cpu.cr4;
    default:
      return cpu.lapic ? cpu.lapic->tpr() >> 4 : 0;
  }
}

}  // namespace

bool write_cr0(Vcpu& cpu, u64 value) {
  if (value >> 32) return gp(cpu);
  value = (value & kCr0Known) | cr0::et;
  const u64 changed = value ^ cpu.cr0;
  if ((value & cr0::pg) && !(value & cr0::pe)) return gp(cpu);
  if ((value & cr0::nw) && !(value & cr0::cd)) return gp(cpu);
  if ((changed & cr0::pg) && !may_switch_paging(cpu, value & cr0::pg)) return gp(cpu);
  if (legacy_pae(cpu, value, cpu.cr4) && (changed & (cr0::pg | cr0::cd | cr0::nw)) && !load_pdptes(cpu, cpu.cr3))
    return gp(cpu);
  cpu.cr0 = value;
  if (changed & cr0::pg) {
    const bool long_mode = (value & cr0::pg) && (cpu.efer & efer::lme);
    cpu.efer = long_mode ? cpu.efer | efer::lma : cpu.efer & ~efer::lma;
  }
  // Entries carry permissions under the WP they were made with.
  if (changed & (cr0::pg | cr0::pe | cr0::wp)) tlb_flush_all(cpu);
  update_mode(cpu);
  TRACE(mmu, "cr0 = {:#x}", value);
  return true;
}

bool write_cr3(Vcpu& cpu, u64 value) {
  const bool pcid = cpu.cr4 & cr4::pcide;
  const bool keep = pcid && (value & kNoFlush);
  if (pcid) value &= ~kNoFlush;
  if (value & cr3_reserved(cpu)) return gp(cpu);
  if (legacy_pae(cpu, cpu.cr0, cpu.cr4) && !load_pdptes(cpu, value)) return gp(cpu);
  cpu.cr3 = value;
  if (pcid)
    tlb_switch_pcid(cpu, value & 0xfff, keep);
  else
    tlb_flush_nonglobal(cpu);
  TRACE(mmu, "cr3 = {:#x}{}", value, keep ? ", entries kept" : "");
  return true;
}

bool write_cr4(Vcpu& cpu, u64 value) {
  constexpr u64 kAll = cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce | cr4::pge | cr4::pce | cr4::osfxsr |
                       cr4::osxmmexcpt | cr4::umip | cr4::fsgsbase | cr4::pcide | cr4::osxsave | cr4::smep | cr4::smap;
  const u64 allowed = cpu.cpuid ? cpu.cpuid->cr4_allowed() & kAll : kAll;
  if (value & ~allowed) return gp(cpu);
  const u64 changed = value ^ cpu.cr4;
  if (cpu.long_mode_active() && !(value & cr4::pae)) return gp(cpu);
  if ((changed & value & cr4::pcide) && (!cpu.long_mode_active() || (cpu.cr3 & 0xfff))) return gp(cpu);
  constexpr u64 kPaging = cr4::pae | cr4::pge | cr4::pse | cr4::smep;
  if (legacy_pae(cpu, cpu.cr0, value) && (changed & kPaging) && !load_pdptes(cpu, cpu.cr3)) return gp(cpu);
  cpu.cr4 = value;
  if (changed & (kPaging | cr4::pcide)) tlb_flush_all(cpu);
  update_mode(cpu);
  TRACE(mmu, "cr4 = {:#x}", value);
  return true;
}

namespace sem {

Outcome mov_cr(Vcpu& cpu, const isa::Insn& insn) {
  const bool to_control = insn.op[0].kind == isa::Operand::Kind::cr;
  const unsigned number = insn.op[to_control ? 0 : 1].reg;
  if (number > 8 || number == 1 || (number > 4 && number < 8)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp();
  u64& r = cpu.gpr[insn.op[to_control ? 1 : 0].reg & 15];
  const u64 mask = cpu.in_long64() ? ~u64{0} : 0xffffffff;
  if (!to_control) {
    r = read_control(cpu, number) & mask;
    return Outcome::next;
  }
  return write_control(cpu, number, r & mask) ? Outcome::next : Outcome::fault;
}

}  // namespace sem

}  // namespace trapline::cpu
