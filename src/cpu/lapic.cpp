// The register file and what the CPU accepts from it. IPIs: lapic_ipi.cpp; the timer: lapic_timer.cpp.
#include "cpu/lapic.h"

#include <bit>

#include "base/trace.h"
#include "cpu/lapic_registers.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

namespace {

constexpr u32 kApicBaseMsr = 0x1b, kTscDeadlineMsr = 0x6e0, kX2First = 0x800;

bool test_bit(const std::array<u32, 64>& reg, u32 first, u8 vector) { return reg[first + vector / 32] >> (vector % 32) & 1; }
void set_bit(std::array<u32, 64>& reg, u32 first, u8 vector) { reg[first + vector / 32] |= 1u << (vector % 32); }
void clear_bit(std::array<u32, 64>& reg, u32 first, u8 vector) { reg[first + vector / 32] &= ~(1u << (vector % 32)); }

int highest(const std::array<u32, 64>& reg, u32 first) {
  for (int word = 7; word >= 0; word--)
    if (const u32 bits = reg[first + word]) return word * 32 + 31 - std::countl_zero(bits);
  return -1;
}

bool is_lvt(u32 index) { return index >= lvt_timer && index <= lvt_error; }

// Bits that exist in each LVT entry (SDM figure 10-8).
u32 lvt_bits(u32 index, bool deadline_mode) {
  switch (index) {
    case lvt_timer: return 0x310ff | (deadline_mode ? 1u << 18 : 0);
    case lvt_lint0: case lvt_lint1: return 0x1f7ff;
    case lvt_error: return 0x110ff;
    default: return 0x117ff;  // thermal, performance counters
  }
}

bool readable(u32 index, bool x2) {
  switch (index) {
    case Reg::id: case version: case tpr: case ppr: case ldr: case svr: case esr: case icr_low: case initial_count: case current_count:
    case divide: return true;
    case apr: case rrd: case dfr: case icr_high: case eoi: return !x2;
    default: return (index >= isr && index < esr) || is_lvt(index);
  }
}

}  // namespace

Lapic::Lapic(Vcpu& cpu, LapicInbox& inbox, LapicMirror& mirror) : cpu_{cpu}, inbox_{inbox}, mirror_{mirror} { reset(false); }

void Lapic::connect(std::vector<Peer> peers, Wake wake, void* context) {
  peers_ = std::move(peers);
  wake_ = wake;
  wake_context_ = context;
}

void Lapic::reset(bool init) {
  if (!init) apic_base_ = 0xfee00000 | kBaseEnable | (cpu_.index == 0 ? kBaseBsp : 0);
  reset_registers();
}

// SDM 10.4.7.1: the state after power-up, INIT, or re-enabling.
void Lapic::reset_registers() {
  reg_.fill(0);
  reg_[version] = kVersion;
  reg_[Reg::id] = x2apic() ? cpu_.index : cpu_.index << 24;
  // In x2APIC mode the logical id follows from the id (SDM 10.12.10.2).
  if (x2apic()) reg_[ldr] = (cpu_.index >> 4) << 16 | 1u << (cpu_.index & 15);
  reg_[dfr] = ~u32{0};
  reg_[svr] = 0xff;
  for (u32 i = lvt_timer; i <= lvt_error; i++) reg_[i] = kMasked;
  if (cpu_.index == 0) reg_[lvt_lint0] = extint << 8;
  highest_irr_ = highest_isr_ = -1;
  pending_errors_ = 0;
  lint0_was_up_ = false;
  timer_running_ = false;
  tsc_deadline_ = 0;
  for (int i = 0; i < 4; i++) {
    inbox_.fixed[i].store(0, std::memory_order_relaxed);
    inbox_.level[i].store(0, std::memory_order_relaxed);
  }
  arm();
  publish();
}

void Lapic::publish() {
  mirror_.id.store(id(), std::memory_order_relaxed);
  mirror_.ldr.store(reg_[ldr], std::memory_order_relaxed);
  mirror_.dfr.store(reg_[dfr], std::memory_order_relaxed);
  mirror_.flags.store((enabled() ? 1 : 0) | (x2apic() ? 2 : 0) | (software_enabled() ? 4 : 0), std::memory_order_release);
}

u32 Lapic::id() const { return x2apic() ? reg_[Reg::id] : reg_[Reg::id] >> 24; }
bool Lapic::software_enabled() const { return reg_[svr] & kSvrEnable; }
bool Lapic::owns(u64 gpa) const { return enabled() && !x2apic() && (gpa & kPageMask) == (apic_base_ & kPageMask); }

// -- Interrupt acceptance --------------------------------------------------------------------------------------------------

void Lapic::raise_attention(u32 bits) { cpu_.attention->fetch_or(bits, std::memory_order_release); }

void Lapic::request(u8 vector, bool level) {
  if (!software_enabled()) return;  // held requests stay; new ones are not accepted (SDM 10.4.7.2)
  set_bit(reg_, irr, vector);
  level ? set_bit(reg_, tmr, vector) : clear_bit(reg_, tmr, vector);
  if (vector > highest_irr_) highest_irr_ = vector;
}

void Lapic::take_inbox() {
  for (u32 word = 0; word < 4; word++) {
    if (inbox_.fixed[word].load(std::memory_order_relaxed) == 0) continue;
    u64 bits = inbox_.fixed[word].exchange(0, std::memory_order_acquire);
    const u64 level = inbox_.level[word].fetch_and(~bits, std::memory_order_relaxed) & bits;
    if (word == 0) {
      if (bits & 0xffff) error(kReceivedIllegalVector);
      bits &= ~u64{0xffff};
    }
    for (; bits; bits &= bits - 1) {
      const int bit = std::countr_zero(bits);
      request(static_cast<u8>(word * 64 + bit), level >> bit & 1);
    }
  }
}

// The 8259's INTR on LINT0 when the guest programmed that pin for something other than ExtINT.
void Lapic::take_lint0() {
  const bool up = inbox_.extint.load(std::memory_order_acquire) != 0;
  const bool edge = up && !lint0_was_up_;
  lint0_was_up_ = up;
  if (edge && delivery_mode(reg_[lvt_lint0]) != extint) local_interrupt(lvt_lint0);
}

// An LVT entry's event happened (SDM 10.5.1).
void Lapic::local_interrupt(u32 lvt_index) {
  const u32 entry = reg_[lvt_index];
  if (entry & kMasked) return;
  // The timer and error entries have no delivery mode field: always fixed.
  const Delivery mode = lvt_index == lvt_timer || lvt_index == lvt_error ? fixed : delivery_mode(entry);
  const u8 vector = static_cast<u8>(entry);
  switch (mode) {
    case fixed:
      if (vector < 16) return error(kReceivedIllegalVector);
      request(vector, false);
      raise_attention(attention::interrupt);
      return;
    case nmi: return raise_attention(attention::nmi);
    case init: return raise_attention(attention::init);
    default: return;
  }
}

void Lapic::error(u32 esr_bit) {
  const bool first = !(pending_errors_ & esr_bit);
  pending_errors_ |= esr_bit;
  // Only the first of a kind interrupts: an error entry with an illegal vector must not report itself for ever.
  if (first) local_interrupt(lvt_error);
}

u8 Lapic::ppr() const {  // SDM 10.8.3.1
  const u32 in_service = highest_isr_ < 0 ? 0 : highest_isr_ & 0xf0;
  return static_cast<u8>((reg_[Reg::tpr] & 0xf0) >= in_service ? reg_[Reg::tpr] : in_service);
}

std::optional<u8> Lapic::pending() {
  if (!enabled()) return std::nullopt;
  take_inbox();
  take_lint0();
  if (highest_irr_ < 0 || (highest_irr_ & 0xf0) <= (ppr() & 0xf0)) return std::nullopt;
  return static_cast<u8>(highest_irr_);
}

void Lapic::accept(u8 vector) {
  clear_bit(reg_, irr, vector);
  set_bit(reg_, isr, vector);
  highest_irr_ = highest(reg_, irr);
  if (vector > highest_isr_) highest_isr_ = vector;
}

bool Lapic::extint_pending() const {
  if (inbox_.extint.load(std::memory_order_acquire) == 0) return false;
  return !enabled() || (!(reg_[lvt_lint0] & kMasked) && delivery_mode(reg_[lvt_lint0]) == extint);
}

// The priority fell: what was held back may now be delivered.
void Lapic::look_again() {
  if (highest_irr_ >= 0 && (highest_irr_ & 0xf0) > (ppr() & 0xf0)) raise_attention(attention::interrupt);
}

void Lapic::eoi() {
  if (highest_isr_ < 0) return;
  const u8 vector = static_cast<u8>(highest_isr_);
  clear_bit(reg_, isr, vector);
  highest_isr_ = highest(reg_, isr);
  TRACE(interrupts, "vcpu{} eoi {:#x}", cpu_.index, vector);
  if (test_bit(reg_, tmr, vector)) cpu_.bus->ioapic_eoi(cpu_, vector);
  look_again();
}

u32 Lapic::tpr() const { return reg_[Reg::tpr]; }

void Lapic::set_tpr(u32 value) {
  reg_[Reg::tpr] = value & 0xff;
  look_again();
}

// -- Registers ---------------------------------------------------------------------------------------------------------------

u32 Lapic::read_register(u32 index) const {
  switch (index) {
    case Reg::tpr: return reg_[Reg::tpr];
    case Reg::ppr: return ppr();
    case apr: {  // SDM 10.6.2.4, arbitration priority
      const u32 request_class = highest_irr_ < 0 ? 0 : highest_irr_ & 0xf0;
      const u32 service_class = highest_isr_ < 0 ? 0 : highest_isr_ & 0xf0;
      const u32 other = request_class > service_class ? request_class : service_class;
      return (reg_[Reg::tpr] & 0xf0) >= other ? reg_[Reg::tpr] & 0xff : other;
    }
    case Reg::eoi: case rrd: return 0;
    case Reg::current_count: return current_count();
    default: return reg_[index];
  }
}

void Lapic::write_lvt(u32 index, u32 value) {
  const u32 old = reg_[index];
  value &= lvt_bits(index, cpu_.cpuid == nullptr || cpu_.cpuid->has(Feature::tsc_deadline_timer));
  value &= ~(kDeliveryStatus | kRemoteIrr);
  if (!software_enabled()) value |= kMasked;
  reg_[index] = value;
  if (index == lvt_timer) timer_lvt_changed(old);
  if (index == lvt_lint0 && inbox_.extint.load(std::memory_order_relaxed)) {
    lint0_was_up_ = false;  // an unmasked pin that is up is noticed anew
    raise_attention(attention::interrupt);
  }
}

void Lapic::write_svr(u32 value) {
  reg_[svr] = value & 0x3ff;
  if (!software_enabled()) {
    const u32 old_timer = reg_[lvt_timer];
    for (u32 i = lvt_timer; i <= lvt_error; i++) reg_[i] |= kMasked;
    timer_lvt_changed(old_timer);
  }
  publish();
}

// False: no such register, or not writable.
bool Lapic::write_register(u32 index, u32 value) {
  switch (index) {
    case Reg::id: return true;  // fixed, as in newer processors
    case Reg::tpr: set_tpr(value); return true;
    case Reg::eoi: eoi(); return true;
    case ldr: reg_[ldr] = value & 0xff000000; publish(); return true;
    case dfr: reg_[dfr] = value | 0x0fffffff; publish(); return true;
    case svr: write_svr(value); return true;
    case esr:
      reg_[esr] = pending_errors_;
      pending_errors_ = 0;
      return true;
    case icr_low:
      reg_[icr_low] = value & 0xccfff & ~kDeliveryStatus;
      send_ipi(reg_[icr_low], x2apic() ? reg_[icr_high] : reg_[icr_high] >> 24);
      return true;
    case icr_high: reg_[icr_high] = value; return true;
    case initial_count: write_initial_count(value); return true;
    case divide: write_divide(value); return true;
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

// -- MSRs --------------------------------------------------------------------------------------------------------------------

// IA32_APIC_BASE: which mode changes are legal is SDM 10.12.5, figure 10-27.
bool Lapic::write_base(u64 value) {
  const u64 address_bits = (u64{1} << cpu_.cpuid->physical_bits()) - kPageSize;
  if (value & ~(address_bits | kBaseBsp | kBaseX2 | kBaseEnable)) return false;
  const bool was_x2 = x2apic(), was_on = enabled(), x2 = value & kBaseX2, on = value & kBaseEnable;
  if (x2 && (!on || !cpu_.cpuid->has(Feature::x2apic))) return false;
  if (on && was_x2 && !x2) return false;
  if (x2 && !was_on) return false;
  apic_base_ = (value & ~kBaseBsp) | (apic_base_ & kBaseBsp);  // which one is the boot processor is not for software to say
  if (was_on != on) {
    reset_registers();
  } else if (x2 && !was_x2) {
    reg_[Reg::id] = cpu_.index;
    reg_[ldr] = (cpu_.index >> 4) << 16 | 1u << (cpu_.index & 15);
    reg_[icr_high] = 0;
    publish();
  }
  TRACE(interrupts, "vcpu{} apic base {:#x}", cpu_.index, apic_base_);
  return true;
}

bool Lapic::msr_read(u32 index, u64* value) {
  if (index == kApicBaseMsr) {
    *value = apic_base_;
    return true;
  }
  if (index == kTscDeadlineMsr) {
    *value = read_deadline();
    return true;
  }
  if (index - kX2First >= 64 || !x2apic() || !readable(index - kX2First, true)) return false;
  *value = read_register(index - kX2First);
  if (index - kX2First == icr_low) *value |= u64{reg_[icr_high]} << 32;
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
    reg_[icr_high] = static_cast<u32>(value >> 32);
    return write_register(icr_low, low);
  }
  if (value >> 32) return false;
  switch (r) {
    case Reg::tpr: if (low > 0xff) return false; break;
    case Reg::eoi: case esr: if (low) return false; break;
    case svr: if (low & ~0x3ffu) return false; break;
    case divide: if (low & ~0xbu) return false; break;
    case initial_count: break;
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
