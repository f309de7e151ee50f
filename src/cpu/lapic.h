// The local APIC with x2APIC mode and TSC-deadline timer. Intel SDM Vol. 3A chapter 10.
//
// Register state belongs to the vCPU thread. Other threads only post: to `inbox` (interrupts; any process that maps the
// page) and the attention word. The inbox may live in a page shared with the monitor, so its contents are checked here.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <vector>

#include "base/addr.h"
#include "base/types.h"
#include "channel/posted.h"

namespace trapline::cpu {

struct Vcpu;

using channel::LapicInbox;
using channel::LapicMirror;

class Lapic {
 public:
  // Times are the clock's TSC. `timer_deadline` of the vCPU follows from them.
  struct Registers {
    std::array<u32, 64> reg{};  // by offset / 16; IRR, ISR, TMR in place
    u64 apic_base = 0xfee00900;
    int highest_irr = -1, highest_isr = -1;  // vectors; -1: none
    u32 pending_errors = 0;                  // shown in ESR after the next write to it (SDM 10.5.3)
    u32 next_lowest_priority = 0;
    bool lint0_was_up = false;
    u32 lint0_rises = 0;         // of LapicInbox::extint, as last seen
    bool timer_running = false;  // one-shot and periodic
    bool timer_quiet = false;    // periodic, and its last interrupt is still in IRR: further ones would merge with it
    u64 timer_start = 0;         // when the current period began
    u64 tsc_deadline = 0;        // guest value of the MSR; 0: disarmed
    bool operator==(const Registers&) const = default;
  };
  struct State {
    Registers registers;
    // Of the inbox: posted and not taken yet.
    std::array<u64, 4> fixed{}, level{};
    u32 extint = 0, sipi_vector = 0;
    bool operator==(const State&) const = default;
  };
  // Both on the vCPU's thread, or while it and whoever posts to it stand still.
  State save() const;
  void restore(const State& state);

  Lapic(Vcpu& cpu, LapicInbox& inbox, LapicMirror& mirror);

  // All local APICs of the VM, by vCPU index, for IPIs; set before threads start. `wake` is called after attention bits
  // were set on a target other than the sender.
  struct Peer {
    Lapic* lapic;
    LapicInbox* inbox;
    LapicMirror* mirror;
    std::atomic<u32>* attention;
  };
  using Wake = void (*)(void* context, u32 vcpu_index);
  void connect(std::vector<Peer> peers, Wake wake, void* context);

  // RESET, or INIT (keeps IA32_APIC_BASE and the id). vCPU 0 leaves RESET with LINT0 passing the 8259's INTR on, as
  // firmware would have left it ("virtual wire mode").
  void reset(bool init);

  // MMIO at (APIC_BASE & ~0xfff); offset 0..0xfff. Sizes other than aligned 4 bytes behave as hardware commonly does
  // (read 0, ignored).
  u32 mmio_read(u32 offset);
  void mmio_write(u32 offset, u32 value);
  bool owns(Gpa gpa) const;  // is this page mine, in xAPIC mode?

  // RDMSR/WRMSR 0x800..0x8ff, IA32_APIC_BASE, IA32_TSC_DEADLINE. False: #GP(0).
  bool msr_read(u32 index, u64* value);
  bool msr_write(u32 index, u64 value);
  const u64& base() const { return s_.apic_base; }             // IA32_APIC_BASE
  bool enabled() const { return s_.apic_base & kBaseEnable; }  // by IA32_APIC_BASE: CPUID.1:EDX.APIC shows it

  u32 tpr() const;  // CR8 is bits 7:4
  void set_tpr(u32 value);

  // Moves posted interrupts into IRR. Then the highest vector above PPR, if any.
  std::optional<u8> pending();
  // The vector was accepted by the CPU: IRR -> ISR.
  void accept(u8 vector);
  // Does this APIC pass the 8259's INTR through (disabled, or LVT0 = unmasked ExtINT), and is the pin up?
  bool extint_pending() const;
  // LINT0 may carry the 8259's INTR as an NMI or INIT, which IF does not hold back: looks at the pin.
  void notice_lint0();
  bool lint0_wakes() const;  // is it programmed so?

  // vm_tsc: the clock's TSC. Fires the timer if due; keeps Vcpu::timer_deadline. Clears attention::timer's cause.
  void on_timer(u64 vm_tsc);
  // TSC_ADJUST changed: a TSC deadline is a value of the guest's TSC.
  void tsc_adjusted();

  u32 id() const;
  // Posts attention::unhalt to the processor whose APIC has this id. False: there is none.
  bool unhalt(u32 apic_id);
  // Of the last start-up IPI: the page number of the code.
  u8 sipi_vector() const { return static_cast<u8>(inbox_.sipi_vector.load(std::memory_order_acquire)); }

 private:
  static constexpr u64 kBaseBsp = 1u << 8, kBaseX2 = 1u << 10, kBaseEnable = 1u << 11;

  bool x2apic() const { return s_.apic_base & kBaseX2; }
  bool software_enabled() const;

  // lapic.cpp: registers and interrupt acceptance
  void reset_registers();
  void publish();
  bool write_base(u64 value);
  void write_lvt(u32 index, u32 value);
  void write_svr(u32 value);
  bool write_register(u32 index, u32 value);
  u32 read_register(u32 index) const;
  void take_inbox();
  void take_lint0();
  void request(u8 vector, bool level);  // into IRR
  bool requested(u8 vector) const;
  void local_interrupt(u32 lvt_index);
  void error(u32 esr_bit);
  void eoi();
  u8 ppr() const;
  void look_again();
  void raise_attention(u32 bits);

  // lapic_ipi.cpp
  struct Message;
  void send_ipi(u32 icr_low, u32 destination);
  bool addressed(const Message& message, u32 peer) const;
  void deliver(const Message& message, u32 peer);
  void deliver_lowest_priority(const Message& message);

  // lapic_timer.cpp
  u32 timer_mode() const;
  u64 tick_length() const;  // TSC ticks per count
  u64 timer_period() const;
  u32 current_count() const;
  void settle_periods(u64 now);
  void timer_accepted(u8 vector);
  void arm();
  void fire();
  void write_initial_count(u32 value);
  void write_divide(u32 value);
  void timer_lvt_changed(u32 old_lvt);
  void write_deadline(u64 value);
  u64 read_deadline();

  Vcpu& cpu_;
  LapicInbox& inbox_;
  LapicMirror& mirror_;
  std::vector<Peer> peers_;
  Wake wake_ = nullptr;
  void* wake_context_ = nullptr;
  Registers s_;
};

}  // namespace trapline::cpu
