// The debugger's way into the core: one command at a time, carried out by a vCPU thread at an instruction boundary.
//
// The monitor (its GDB stub) stops all vCPUs first: stop_request = 1, kick every vCPU; each acknowledges by its bit in `stopped` and
// sleeps on `epoch`. Then per command: fill in the fields, command = ..., epoch += 1, futex-wake it; vCPU `vcpu` executes it, sets
// done_epoch = epoch and wakes it. `resume` clears `stopped`; a vCPU that meets a breakpoint or finishes a step raises stop_request
// itself, stores stop_reason and stop_vcpu and kicks the others.
// The core writes results only; the monitor checks lengths before it reads `data`.
#pragma once

#include <atomic>

#include "base/types.h"

namespace trapline::core {

enum class DebugCommand : u32 {
  none = 0,
  read_registers,    // data: DebugRegisterFile
  write_registers,
  read_memory,       // address (guest linear, current paging), length; result: bytes read
  write_memory,
  set_breakpoint,    // address
  clear_breakpoint,  // address
  step,              // vCPU `vcpu` executes one instruction, the others stay stopped
  resume,
};

struct DebugRegisterFile {
  u64 gpr[16], rip, rflags, cr0, cr2, cr3, cr4, efer;
  u16 selector[6];
  u64 base[6];
  u8 mode, cpl;
  u16 fcw, fsw, ftw;
  u32 mxcsr;
  u8 st[8][16];
  u8 ymm[16][32];
};

struct DebugMailbox {
  std::atomic<u32> stop_request{0};
  std::atomic<u64> stopped{0};      // bit per vCPU
  std::atomic<u32> epoch{0}, done_epoch{0};
  u32 command = 0, vcpu = 0;
  u64 address = 0;
  u32 length = 0, result = 0;
  u32 stop_reason = 0, stop_vcpu = 0;  // 1: breakpoint, 2: step done, 3: asked to
  u8 data[4096] = {};
};

static_assert(sizeof(DebugRegisterFile) <= sizeof(DebugMailbox::data));

}  // namespace trapline::core
