// Frames that far transfers and event delivery push and pop: several items checked one by one, the stack pointer moved
// only when all went well. Intel SDM Vol. 1 6.4, Vol. 3A 6.12.1 and 6.14.2.
#pragma once

#include "cpu/descriptor.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

// Pushes onto the current stack, or onto one that is about to become current. `cpl` is the level that the stack belongs
// to: when it differs from cpu.cpl the accesses are that inner level's, which is a supervisor's. `error`: #SS's error
// code.
class StackWriter {
 public:
  // The current stack.
  explicit StackWriter(Vcpu& cpu) : StackWriter(cpu, ss_of(cpu), cpu.gpr[isa::rsp], cpu.in_long64(), cpu.cpl, 0) {}
  StackWriter(Vcpu& cpu, const Segment& ss, u64 rsp, bool long64, u8 cpl, u32 error)
      : cpu_{cpu},
        ss_{ss},
        rsp_{rsp},
        mask_{long64     ? ~u64{0}
              : ss.big() ? 0xffffffff
                         : 0xffff},
        long64_{long64},
        current_{cpl == cpu.cpl},
        error_{error} {}

  // Moves down by `bytes` (2, 4, 8) and writes there; `written`: fewer bytes than that (a selector in a wider slot).
  bool push(u64 value, unsigned bytes, unsigned written = 0);
  // Do `bytes` below the stack pointer fit the segment? For the manual's "stack has room for" checks. False:
  // #SS(error).
  bool has_room(unsigned bytes);
  // The stack pointer after the pushes: bits that the stack's width does not cover keep their value.
  u64 rsp() const { return rsp_; }

 private:
  Vcpu& cpu_;
  Segment ss_;
  u64 rsp_, mask_;
  bool long64_, current_;
  u32 error_;
};

// Pops from the current stack.
class StackReader {
 public:
  explicit StackReader(Vcpu& cpu)
      : cpu_{cpu},
        rsp_{cpu.gpr[isa::rsp]},
        mask_{cpu.in_long64()    ? ~u64{0}
              : ss_of(cpu).big() ? 0xffffffff
                                 : 0xffff} {}
  bool pop(u64& value, unsigned bytes);
  // Faults as a pop of `bytes` would that lie `above` bytes further up.
  bool reaches(u64 above, unsigned bytes) {
    StackReader other = *this;
    u64 ignored;
    other.skip(above);
    return other.pop(ignored, bytes);
  }
  void skip(u64 bytes) { rsp_ = (rsp_ & ~mask_) | ((rsp_ + bytes) & mask_); }
  u64 rsp() const { return rsp_; }

 private:
  Vcpu& cpu_;
  u64 rsp_, mask_;
};

// The stack pointer and segment for an inner privilege level from the current TSS (16 or 32 bits). False: #TS(TSS),
// #PF.
bool inner_stack(Vcpu& cpu, u8 cpl, u16& ss, u32& esp);
// One of the 64-bit TSS's stack pointers, at `offset` (RSP0.. 4, 12, 20; IST1.. 36 + 8 n). False: #TS(TSS), #PF.
bool inner_stack64(Vcpu& cpu, unsigned offset, u64& rsp);

}  // namespace trapline::cpu
