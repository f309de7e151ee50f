// What a guest's kernel finds on its stack.
#pragma once

#include "para/xen/domain.h"

namespace trapline::para::xen {

struct Domain::Bounce {
  const char* what;  // for messages; `vector`, if there is one, tells it better
  Gva handler;
  bool masks_events = false, has_error = false;
  bool segments = false;  // DS ES FS GS are part of the frame: the failsafe callback's
  u32 error = 0;
  u64 rip = 0;
  u16 cs = 0, ss = 0;
  u32 flags = 0;
  int vector = -1;
  std::string name(const cpu::Vcpu& cpu) const;
};

// What follows from the vCPU's mode and tables: CR3, and whose the translations are.
void set_roots(cpu::Vcpu& cpu, const VcpuState& v);

cpu::Segment flat_code64();
cpu::Segment flat_code32();
cpu::Segment flat_stack();

}  // namespace trapline::para::xen
