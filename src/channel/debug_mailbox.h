// The debugger's way into the core: one command at a time, carried out by a vCPU's thread at an instruction boundary.
//
//   stop = 1, kick all    each vCPU ends its instruction, sets its bit in `paused` and sleeps on `epoch`; the last one
//                         to do so bumps `event`
//   epoch = command_word  the vCPU that it names obeys, stores `result` and data, then done = epoch, and bumps `event`
//   resume                the monitor clears `stop`, `reporter` and the bits of those to go on, then sets their `go`
//
// One word says both that there is a command and whose it is: a vCPU that wakes late cannot take the next command's
// half-written fields for its own. Who goes on is told by a word each, taken by that vCPU alone, for the same reason.
//
// A vCPU that has something to tell (a breakpoint, a finished step) claims `reporter`, fills in the report, sets `stop`
// itself and kicks the others. Commands are given only while all vCPUs are paused, so a command is alone with the whole
// VM. The monitor reads core's fields once and checks lengths and numbers; they carry no authority.
#pragma once

#include <atomic>
#include <type_traits>

#include "base/addr.h"
#include "channel/arch_state.h"

namespace trapline::channel {

enum class DebugCommand : u32 {
  none = 0,
  read_registers,   // data: DebugRegisters
  write_registers,  // data: DebugRegisters, all of it; what is not writable is left alone
  read_memory,   // address (linear, by the vCPU's paging), length; result: bytes read before the first that is not RAM
  write_memory,  // the same with data; result: bytes written
  translate,     // address; result: 1 if mapped, data: Gpa
  load_stops,    // takes over `stops`
  resume,        // look at `go`; no answer
};

enum class Go : u32 { no = 0, run, step };

// `number` tells it from the command before.
constexpr u32 command_word(DebugCommand command, u32 vcpu, u32 number) {
  return static_cast<u32>(command) << 24 | (vcpu & 0xff) << 16 | (number & 0xffff);
}
constexpr DebugCommand command_of(u32 word) { return static_cast<DebugCommand>(word >> 24); }
constexpr u32 vcpu_of(u32 word) { return word >> 16 & 0xff; }

enum class DebugReport : u32 { none = 0, breakpoint, step, watchpoint, crash };

// Breakpoints and watchpoints. Written by the monitor, copied by the core.
enum class StopKind : u32 { execute = 0, write, read, access };
struct DebugStop {
  Gva address;
  u32 length = 0;  // watchpoints: bytes
  StopKind kind = StopKind::execute;
};

// A vCPU as the debugger sees it: its state, and what follows from it.
struct DebugRegisters : ArchState {
  Gva pc;          // linear: CS base + RIP
  u64 eflags = 0;  // all of RFLAGS
  u64 cr8 = 0;
  u8 mode = 0;  // cpu::Mode
};

struct DebugMailbox {
  static constexpr u32 kStops = 128;
  static constexpr u32 kDataBytes = 4096;

  std::atomic<u32> stop{0};
  std::atomic<u32> attached{0};           // a client is there to hear of a crash
  std::atomic<u64> paused{0};             // bit per vCPU
  std::atomic<u32> reporter{0};           // vCPU + 1
  u32 report = 0;                         // DebugReport
  u32 report_kind = 0;                    // watchpoint: its StopKind
  Gva report_address;                     // watchpoint: its address
  alignas(64) std::atomic<u32> epoch{0};  // futex
  std::atomic<u32> done{0};
  std::atomic<u32> event{0};  // futex
  Gva address;
  u32 length = 0, result = 0;
  std::atomic<u32> go[64] = {};  // by vCPU: Go
  u32 step_interrupts = 0;       // let interrupts in while stepping
  u32 stop_count = 0;
  DebugStop stops[kStops] = {};
  u8 data[kDataBytes] = {};
};

static_assert(sizeof(DebugRegisters) <= DebugMailbox::kDataBytes && std::is_trivially_copyable_v<DebugRegisters>);

}  // namespace trapline::channel
