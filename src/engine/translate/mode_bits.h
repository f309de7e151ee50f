// Bits of Key::mode above the interpreter's: what code of one mode key may still differ in.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine::translate {

inline constexpr u32 kViewShift = 8, kSse = 1 << 10, kAvx = 1 << 11, kAvx512 = 1 << 12, kFsFlat = 1 << 13,
                     kGsFlat = 1 << 14, kX87 = 1 << 15, kInner = 1 << 16, kFsGsBase = 1 << 17;

// Is code of this mode translated at all? `key`: the interpreter's.
bool translatable(const cpu::Vcpu& cpu, u32 key);

}  // namespace trapline::engine::translate
