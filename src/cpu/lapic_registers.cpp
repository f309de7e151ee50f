// The register file as software reads and writes it: memory-mapped (SDM Vol. 3A 10.4) and as MSRs (10.12).
#include "cpu/lapic_registers.h"

#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

namespace {

constexpr u32 kApicBaseMsr = 0x1b, kTscDeadlineMsr = 0x6e0, kX2First = 0x800;

bool is_lvt(u32 index) { return index >= lvt_timer && index <= lvt_error; }

// Bits that exist in each LVT entry (SDM figure 10-8).
u32 lvt_bits(u32 index, bool deadline_mode) {
  switch (index) {
    case lvt_timer:
      return 0x310ff | (deadline_mode ? 1u << 18 : 0);
    case lvt_lint0:
    case lvt_lint1:
      return 0x1f7ff;
    case lvt_error:
      return 0x110ff;
    default:
      return 0x117ff;  // thermal, performance counters
  }
}

bool readable(u32 index, bool x2) {
  switch (index) {
    case Reg::id:
    case version:
    case tpr:
    case ppr:
    case ldr:
    case svr:
    case esr:
    case icr_low:
    case initial_count:
    case current_count:
    case divide:
      return true;
    case apr:
    case rrd:
    case dfr:
    case icr_high:
    case eoi:
      return !x2;
    default:
      return (index >= isr && index < esr) || is_lvt(index);
  }
}

}  // namespace

u32 Lapic::read_register(u32 index) const {
  switch (index) {
    case Reg::tpr:
      return s_.reg[Reg::tpr];
    case Reg::ppr:
      return ppr();
    case apr: {  // SDM 10.6.2.4, arbitration priority
      const u32 request_class = s_.highest_irr < 0 ? 0 : s_.highest_irr & 0xf0;
      const u32 service_class = s_.highest_isr < 0 ? 0 : s_.highest_isr & 0xf0;
      const u32 other = request_class > service_class ? request_class : service_class;
      return (s_.reg[Reg::tpr] & 0xf0) >= other ? s_.reg[Reg::tpr] & 0xff : other;
    }
    case Reg::eoi:
    case rrd:
      return 0;
    case Reg::current_count:
      return current_count();
    default:
      return s_.reg[index];
  }
}

void Lapic::write_lvt(u32 index, u32 value) {
  const u32 old = s_.reg[index];
  value &= lvt_bits(index, cpu_.cpuid == nullptr || cpu_.cpuid->has(Feature::tsc_deadline_timer));
  value &= ~(kDeliveryStatus | kRemoteIrr);
  if (!software_enabled()) value |= kMasked;
  if (index == lvt_lint0) take_lint0();  // what happened so far meets the old setting
  s_.reg[index] = value;
  if (index == lvt_timer) timer_lvt_changed(old);
  if (index == lvt_lint0 && (inbox_.extint.load(std::memory_order_relaxed) & 1)) {
    s_.lint0_was_up = false;  // an unmasked pin that is up is noticed anew
    raise_attention(attention::interrupt);
  }
}

void Lapic::write_svr(u32 value) {
  take_inbox();  // what arrived so far meets the old setting: a disabled APIC drops it
  s_.reg[svr] = value & 0x3ff;
  if (!software_enabled()) {
    const u32 old_timer = s_.reg[lvt_timer];
    for (u32 i = lvt_timer; i <= lvt_error; i++) s_.reg[i] |= kMasked;
    timer_lvt_changed(old_timer);
  }
  publish();
}

// False: no such register, or not writable.
bool Lapic::write_register(u32 index, u32 value) {
  switch (index) {
    case Reg::id:
      return true;  // fixed, as in newer processors
    case Reg::tpr:
      set_tpr(value);
      return true;
    case Reg::eoi:
      eoi();
      return true;
    case ldr:
      s_.reg[ldr] = value & 0xff000000;
      publish();
      return true;
    case dfr:
      s_.reg[dfr] = value | 0x0fffffff;
      publish();
      return true;
    case svr:
      write_svr(value);
      return true;
    case esr:
      s_.reg[esr] = s_.pending_errors;
      s_.pending_errors = 0;
      return true;
    case icr_low:
      s_.reg[icr_low] = value & 0xccfff & ~kDeliveryStatus;
      send_ipi(s_.reg[icr_low], x2apic() ? s_.reg[icr_high] : s_.reg[icr_high] >> 24);
      return true;
    case icr_high:
      s_.reg[icr_high] = value;
      return true;
    case initial_count:
      write_initial_count(value);
      return true;
    case divide:
      write_divide(value);
      return true;
    default:
      if (!is_lvt(index)) return false;
      write_lvt(index, value);
      return true;
  }
}

u32 Lapic::mmio_read(u32 offset) {
  if (offset & 0xf || offset > 0x3f0) return 0;
  const u32 index = offset / 16;
  if (!readable(index, false)) {
    error(kIllegalRegister);
    return 0;
  }
  return read_register(index);
}

void Lapic::mmio_write(u32 offset, u32 value) {
  if (offset & 0xf || offset > 0x3f0) return;
  const u32 index = offset / 16;
  if (index == icr_high) value &= 0xff000000;
  if (index == self_ipi || !write_register(index, value)) error(kIllegalRegister);
}

// -- MSRs

// IA32_APIC_BASE: which mode changes are legal is SDM 10.12.5, figure 10-27.
bool Lapic::write_base(u64 value) {
  const u64 address_bits = (u64{1} << cpu_.cpuid->physical_bits()) - kPageSize;
  if (value & ~(address_bits | kBaseBsp | kBaseX2 | kBaseEnable)) return false;
  const bool was_x2 = x2apic(), was_on = enabled(), x2 = value & kBaseX2, on = value & kBaseEnable;
  if (x2 && (!on || !cpu_.cpuid->has(Feature::x2apic))) return false;
  if (on && was_x2 && !x2) return false;
  if (x2 && !was_on) return false;
  const u64 before = s_.apic_base;
  s_.apic_base =
      (value & ~kBaseBsp) | (s_.apic_base & kBaseBsp);  // which one is the boot processor is not for software to say
  if (was_on != on) {
    reset_registers();
  } else if (x2 && !was_x2) {
    s_.reg[Reg::id] = cpu_.index;
    s_.reg[ldr] = (cpu_.index >> 4) << 16 | 1u << (cpu_.index & 15);
    s_.reg[icr_high] = 0;
    publish();
  }
  // The TLB holds no page of registers: RAM under the new place must go, and the old place may be RAM again.
  if (before != s_.apic_base && cpu_.tlb) tlb_flush_all(cpu_);
  TRACE(interrupts, "apic base {:#x}", s_.apic_base);
  return true;
}

bool Lapic::msr_read(u32 index, u64* value) {
  if (index == kApicBaseMsr) {
    *value = s_.apic_base;
    return true;
  }
  if (index == kTscDeadlineMsr) {
    *value = read_deadline();
    return true;
  }
  if (index - kX2First >= 64 || !x2apic() || !readable(index - kX2First, true)) return false;
  *value = read_register(index - kX2First);
  if (index - kX2First == icr_low) *value |= u64{s_.reg[icr_high]} << 32;
  return true;
}

// x2APIC registers refuse reserved bits, where the memory-mapped ones ignore them (SDM 10.12.1.3).
bool Lapic::msr_write(u32 index, u64 value) {
  if (index == kApicBaseMsr) return write_base(value);
  if (index == kTscDeadlineMsr) {
    write_deadline(value);
    return true;
  }
  const u32 r = index - kX2First;
  if (r >= 64 || !x2apic()) return false;
  const u32 low = static_cast<u32>(value);
  if (r == icr_low) {
    if (low & ~(0xccfffu | kDeliveryStatus)) return false;
    s_.reg[icr_high] = static_cast<u32>(value >> 32);
    return write_register(icr_low, low);
  }
  if (value >> 32) return false;
  switch (r) {
    case Reg::tpr:
      if (low > 0xff) return false;
      break;
    case Reg::eoi:
    case esr:
      if (low) return false;
      break;
    case svr:
      if (low & ~0x3ffu) return false;
      break;
    case divide:
      if (low & ~0xbu) return false;
      break;
    case initial_count:
      break;
    case self_ipi:
      if (low > 0xff) return false;
      send_ipi(1u << 18 | low, 0);
      return true;
    default:
      if (!is_lvt(r) || low & ~lvt_bits(r, cpu_.cpuid->has(Feature::tsc_deadline_timer))) return false;
  }
  return write_register(r, low);
}

}  // namespace trapline::cpu
