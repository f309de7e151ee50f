// The local APIC with x2APIC mode and TSC-deadline timer. Intel SDM Vol. 3A chapter 10.
//
// Register state belongs to the vCPU thread. Other threads only post: to `inbox` (interrupts; any process that maps the page) and
// the attention word. The inbox may live in a page shared with the monitor, so its contents are checked here.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <vector>

#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

// Posted interrupts: one bit per vector, taken into IRR by the vCPU thread. After setting bits: attention::interrupt, then wake.
struct LapicInbox {
  std::atomic<u64> fixed[4];  // requests by vector
  std::atomic<u64> level[4];  // of those, the level-triggered ones (set before `fixed`)
  std::atomic<u32> extint;    // level of the 8259's INTR pin (only vCPU 0's is wired)
  std::atomic<u32> sipi_vector;
};

// What the monitor's IOAPIC needs to find destinations; written by the vCPU thread, only read elsewhere.
struct LapicMirror {
  std::atomic<u32> id;          // APIC id (8 bits in xAPIC mode, 32 in x2APIC)
  std::atomic<u32> ldr, dfr;
  std::atomic<u32> flags;       // bit 0: enabled by APIC_BASE; bit 1: x2APIC; bit 2: software-enabled (SVR.8)
};

struct IpiTarget;  // one other vCPU as an IPI sees it

class Lapic {
 public:
  Lapic(Vcpu& cpu, LapicInbox& inbox, LapicMirror& mirror);

  // All local APICs of the VM, for IPIs; set before threads start. `wake` is called after attention bits were set on a target.
  struct Peer {
    Lapic* lapic;
    LapicInbox* inbox;
    LapicMirror* mirror;
    std::atomic<u32>* attention;
  };
  using Wake = void (*)(void* context, u32 vcpu_index);
  void connect(std::vector<Peer> peers, Wake wake, void* context);

  void reset(bool init);

  // MMIO at (APIC_BASE & ~0xfff); offset 0..0xfff. Sizes other than aligned 4 bytes behave as hardware commonly does (read 0, ignored).
  u32 mmio_read(u32 offset);
  void mmio_write(u32 offset, u32 value);
  bool owns(u64 gpa) const;  // is this page mine, in xAPIC mode?

  // RDMSR/WRMSR 0x800..0x8ff, IA32_APIC_BASE, IA32_TSC_DEADLINE. False: #GP(0).
  bool msr_read(u32 index, u64* value);
  bool msr_write(u32 index, u64 value);

  u32 tpr() const;          // CR8 is bits 7:4
  void set_tpr(u32 value);

  // Moves posted interrupts into IRR. Then the highest vector above PPR, if any.
  std::optional<u8> pending();
  // The vector was accepted by the CPU: IRR -> ISR.
  void accept(u8 vector);
  // Does this APIC pass the 8259's INTR through (disabled, or LVT0 = unmasked ExtINT), and is the pin up?
  bool extint_pending() const;

  // vm_tsc: the clock's TSC. Fires the timer if due; keeps Vcpu::timer_deadline. Clears attention::timer's cause.
  void on_timer(u64 vm_tsc);

  u32 id() const;

 private:
  struct State;
  Vcpu& cpu_;
  LapicInbox& inbox_;
  LapicMirror& mirror_;
  std::vector<Peer> peers_;
  Wake wake_ = nullptr;
  void* wake_context_ = nullptr;
  std::array<u32, 64> reg_{};   // by offset / 16; IRR, ISR, TMR in place
  u64 apic_base_ = 0xfee00900;
  u64 timer_start_ = 0;         // vm_tsc when the initial count was written
  u64 tsc_deadline_ = 0;        // guest value of the MSR
};

}  // namespace trapline::cpu
