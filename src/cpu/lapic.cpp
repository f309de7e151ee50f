// Interrupt acceptance: inbox, IRR, ISR, priorities, EOI. Registers as the guest sees them: lapic_registers.cpp; IPIs:
// lapic_ipi.cpp; the timer: lapic_timer.cpp.
#include "cpu/lapic.h"

#include <bit>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/lapic_registers.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

namespace {

bool test_bit(const std::array<u32, 64>& reg, u32 first, u8 vector) {
  return reg[first + vector / 32] >> (vector % 32) & 1;
}
void set_bit(std::array<u32, 64>& reg, u32 first, u8 vector) { reg[first + vector / 32] |= 1u << (vector % 32); }
void clear_bit(std::array<u32, 64>& reg, u32 first, u8 vector) { reg[first + vector / 32] &= ~(1u << (vector % 32)); }

int highest(const std::array<u32, 64>& reg, u32 first) {
  for (u32 word = 8; word-- > 0;)
    if (const u32 bits = reg[first + word]) return static_cast<int>(word * 32 + 31) - std::countl_zero(bits);
  return -1;
}

}  // namespace

Lapic::Lapic(Vcpu& cpu, LapicInbox& inbox, LapicMirror& mirror) : cpu_{cpu}, inbox_{inbox}, mirror_{mirror} {
  reset(false);
}

void Lapic::connect(std::vector<Peer> peers, Wake wake, void* context) {
  peers_ = std::move(peers);
  wake_ = wake;
  wake_context_ = context;
}

void Lapic::reset(bool init) {
  if (!init) s_.apic_base = 0xfee00000 | kBaseEnable | (cpu_.index == 0 ? kBaseBsp : 0);
  reset_registers();
}

Lapic::State Lapic::save() const {
  State state{.registers = s_};
  for (unsigned i = 0; i < 4; i++) {
    state.fixed[i] = inbox_.fixed[i].load(std::memory_order_acquire);
    state.level[i] = inbox_.level[i].load(std::memory_order_relaxed);
  }
  state.extint = inbox_.extint.load(std::memory_order_relaxed);
  state.sipi_vector = inbox_.sipi_vector.load(std::memory_order_relaxed);
  return state;
}

void Lapic::restore(const State& state) {
  s_ = state.registers;
  INVARIANT(s_.highest_irr == highest(s_.reg, irr) && s_.highest_isr == highest(s_.reg, isr),
            "a saved APIC has {} and {} on top", s_.highest_irr, s_.highest_isr);
  for (unsigned i = 0; i < 4; i++) {
    inbox_.level[i].store(state.level[i], std::memory_order_relaxed);
    inbox_.fixed[i].store(state.fixed[i], std::memory_order_release);
  }
  inbox_.extint.store(state.extint, std::memory_order_relaxed);
  inbox_.sipi_vector.store(state.sipi_vector, std::memory_order_relaxed);
  arm();
  publish();
}

// SDM 10.4.7.1: the state after power-up, INIT, or re-enabling.
void Lapic::reset_registers() {
  s_.reg.fill(0);
  s_.reg[version] = kVersion;
  s_.reg[Reg::id] = x2apic() ? cpu_.index : cpu_.index << 24;
  // In x2APIC mode the logical id follows from the id (SDM 10.12.10.2).
  if (x2apic()) s_.reg[ldr] = (cpu_.index >> 4) << 16 | 1u << (cpu_.index & 15);
  s_.reg[dfr] = ~u32{0};
  s_.reg[svr] = 0xff;
  for (u32 i = lvt_timer; i <= lvt_error; i++) s_.reg[i] = kMasked;
  if (cpu_.index == 0) s_.reg[lvt_lint0] = extint << 8;
  s_.highest_irr = s_.highest_isr = -1;
  s_.pending_errors = 0;
  s_.lint0_was_up = false;
  s_.lint0_rises = inbox_.extint.load(std::memory_order_relaxed) >> 1;
  s_.timer_running = false;
  s_.tsc_deadline = 0;
  // Posts that race with this are lost as they are on hardware: until the guest sets SVR's enable bit, on this thread
  // and later, the APIC takes no fixed interrupt. What INIT must not lose, SIPI and ExtINT, is not cleared.
  for (int i = 0; i < 4; i++) {
    inbox_.fixed[i].store(0, std::memory_order_relaxed);
    inbox_.level[i].store(0, std::memory_order_relaxed);
  }
  arm();
  publish();
}

void Lapic::publish() {
  mirror_.id.store(id(), std::memory_order_relaxed);
  mirror_.ldr.store(s_.reg[ldr], std::memory_order_relaxed);
  mirror_.dfr.store(s_.reg[dfr], std::memory_order_relaxed);
  mirror_.flags.store((enabled() ? 1 : 0) | (x2apic() ? 2 : 0) | (software_enabled() ? 4 : 0),
                      std::memory_order_release);
}

u32 Lapic::id() const { return x2apic() ? s_.reg[Reg::id] : s_.reg[Reg::id] >> 24; }
bool Lapic::software_enabled() const { return s_.reg[svr] & kSvrEnable; }
bool Lapic::owns(Gpa gpa) const { return enabled() && !x2apic() && gpa.page().raw == (s_.apic_base & kPageMask); }

// -- Interrupt acceptance

void Lapic::raise_attention(u32 bits) { cpu_.attention->fetch_or(bits, std::memory_order_release); }

void Lapic::request(u8 vector, bool level) {
  if (!software_enabled()) return;  // held requests stay; new ones are not accepted (SDM 10.4.7.2)
  set_bit(s_.reg, irr, vector);
  level ? set_bit(s_.reg, tmr, vector) : clear_bit(s_.reg, tmr, vector);
  if (vector > s_.highest_irr) s_.highest_irr = vector;
}

bool Lapic::requested(u8 vector) const { return test_bit(s_.reg, irr, vector); }

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
      const auto bit = static_cast<u32>(std::countr_zero(bits));
      request(static_cast<u8>(word * 64 + bit), level >> bit & 1);
    }
  }
}

// The 8259's INTR on LINT0 when the guest programmed that pin for something other than ExtINT.
void Lapic::take_lint0() {
  const u32 intr = inbox_.extint.load(std::memory_order_acquire);
  const bool up = intr & 1;
  const bool edge = intr >> 1 != s_.lint0_rises || (up && !s_.lint0_was_up);
  s_.lint0_was_up = up;
  s_.lint0_rises = intr >> 1;
  if (edge && delivery_mode(s_.reg[lvt_lint0]) != extint) local_interrupt(lvt_lint0);
}

bool Lapic::lint0_wakes() const {
  const Delivery mode = delivery_mode(s_.reg[lvt_lint0]);
  return enabled() && !(s_.reg[lvt_lint0] & kMasked) && (mode == Delivery::nmi || mode == Delivery::init);
}

void Lapic::notice_lint0() {
  if (lint0_wakes()) take_lint0();
}

// An LVT entry's event happened (SDM 10.5.1).
void Lapic::local_interrupt(u32 lvt_index) {
  const u32 entry = s_.reg[lvt_index];
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
    case nmi:
      return attention::post_nmi(*cpu_.attention);
    case init:
      return raise_attention(attention::init);
    default:
      return;
  }
}

void Lapic::error(u32 esr_bit) {
  const bool first = !(s_.pending_errors & esr_bit);
  s_.pending_errors |= esr_bit;
  // Only the first of a kind interrupts: an error entry with an illegal vector must not report itself for ever.
  if (first) local_interrupt(lvt_error);
}

u8 Lapic::ppr() const {  // SDM 10.8.3.1
  const u32 in_service = s_.highest_isr < 0 ? 0 : s_.highest_isr & 0xf0;
  return static_cast<u8>((s_.reg[Reg::tpr] & 0xf0) >= in_service ? s_.reg[Reg::tpr] : in_service);
}

std::optional<u8> Lapic::pending() {
  if (!enabled()) return std::nullopt;
  take_inbox();
  take_lint0();
  if (s_.highest_irr < 0 || (s_.highest_irr & 0xf0) <= (ppr() & 0xf0)) return std::nullopt;
  return static_cast<u8>(s_.highest_irr);
}

void Lapic::accept(u8 vector) {
  INVARIANT(requested(vector), "vector {:#x} is accepted, and nobody has asked", vector);
  INVARIANT((vector & 0xf0) > (ppr() & 0xf0), "vector {:#x} is accepted at priority {:#x}", vector, ppr());
  clear_bit(s_.reg, irr, vector);
  set_bit(s_.reg, isr, vector);
  s_.highest_irr = highest(s_.reg, irr);
  if (vector > s_.highest_isr) s_.highest_isr = vector;
  if (s_.timer_quiet) timer_accepted(vector);
}

bool Lapic::extint_pending() const {
  if (!(inbox_.extint.load(std::memory_order_acquire) & 1)) return false;
  return !enabled() || (!(s_.reg[lvt_lint0] & kMasked) && delivery_mode(s_.reg[lvt_lint0]) == extint);
}

// The priority fell: what was held back may now be delivered.
void Lapic::look_again() {
  if (s_.highest_irr >= 0 && (s_.highest_irr & 0xf0) > (ppr() & 0xf0)) raise_attention(attention::interrupt);
}

void Lapic::eoi() {
  if (s_.highest_isr < 0) return;
  const u8 vector = static_cast<u8>(s_.highest_isr);
  INVARIANT(test_bit(s_.reg, isr, vector), "vector {:#x} ends, and is not in service", vector);
  clear_bit(s_.reg, isr, vector);
  s_.highest_isr = highest(s_.reg, isr);
  TRACE(interrupts, "eoi {:#x}", vector);
  if (test_bit(s_.reg, tmr, vector)) cpu_.bus->ioapic_eoi(cpu_, vector);
  look_again();
}

u32 Lapic::tpr() const { return s_.reg[Reg::tpr]; }

void Lapic::set_tpr(u32 value) {
  s_.reg[Reg::tpr] = value & 0xff;
  look_again();
}

}  // namespace trapline::cpu
