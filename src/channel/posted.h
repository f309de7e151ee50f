// What other threads and the monitor may post to a vCPU at any time, and the part of its local APIC that they may know.
#pragma once

#include <atomic>

#include "base/types.h"

namespace trapline::channel {

// Bits of a vCPU's attention word. Any thread sets them (release); the vCPU thread takes them at an instruction
// boundary.
namespace attention {
inline constexpr u32 interrupt = 1;  // the local APIC or the PIC may have something: look
inline constexpr u32 nmi = 2;
inline constexpr u32 init = 4;
inline constexpr u32 sipi = 8;
inline constexpr u32 smp_request = 16;    // another vCPU asks for a write-TLB flush (CodeMap) and waits for the answer
inline constexpr u32 kick = 32;           // return to the vCPU loop: pause, quit, debugger, turn over
inline constexpr u32 code_changed = 128;  // code that an engine translated was overwritten: leave it (CodeMap::watch)
inline constexpr u32 timer = 64;          // the local APIC timer's deadline may have passed
inline constexpr u32 nmi_again = 256;     // a second NMI behind one that is not taken yet: a processor keeps both
inline constexpr u32 unhalt = 512;        // a paravirtual kick: ends the halt under way, or the next one at once
inline constexpr u32 any_nmi = nmi | nmi_again;

// Posts an NMI. One that comes while the vCPU has not taken the one before waits behind it; a third is lost. Any
// thread.
inline void post_nmi(std::atomic<u32>& bits) {
  if (bits.fetch_or(nmi) & nmi) bits.fetch_or(nmi_again);  // seq_cst: ordered before the sender's look at sleepers
}
}  // namespace attention

// Posted interrupts: one bit per vector, taken into IRR by the vCPU thread. After setting bits: attention::interrupt,
// then wake.
struct LapicInbox {
  std::atomic<u64> fixed[4];  // requests by vector
  std::atomic<u64> level[4];  // of those, the level-triggered ones (set before `fixed`)
  // The 8259's INTR pin (only vCPU 0's is wired). Bit 0: its level; above: how often it rose, modulo 2^31, since a pulse
  // that is over before the vCPU looks was an edge all the same.
  std::atomic<u32> extint;
  std::atomic<u32> sipi_vector;
};

// What the monitor's IOAPIC needs to find destinations; written by the vCPU thread, only read elsewhere.
struct LapicMirror {
  std::atomic<u32> id;  // APIC id (8 bits in xAPIC mode, 32 in x2APIC)
  std::atomic<u32> ldr, dfr;
  std::atomic<u32> flags;  // bit 0: enabled by APIC_BASE; bit 1: x2APIC; bit 2: software-enabled (SVR.8)
};

}  // namespace trapline::channel
