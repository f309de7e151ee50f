// Vector and x87 state between the vCPU and XSAVE images in the standard format. Intel SDM Vol. 1 chapter 13.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine::patch {

// Components that cages run with: those of the host that Trapline knows. The guest's XCR0 must enable all of them.
u32 host_components();
// `image` may hold anything. x87 must be parked.
void take_vectors(cpu::Vcpu& cpu, const u8* image);
// 64-byte aligned, 4096 bytes; only what is not in its initial state counts as in use.
void give_vectors(cpu::Vcpu& cpu, u8* image);

}  // namespace trapline::engine::patch
