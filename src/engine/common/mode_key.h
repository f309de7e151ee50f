// The bits of a vCPU's mode that decide how bytes decode and what addresses mean: part of the key of every block,
// whichever engine has made it.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine {

namespace key {
inline constexpr u32 size_mask = 3;   // 0: 16, 1: 32, 2: 64 bit
inline constexpr u32 ss_big = 4;      // legacy modes: stack pointer is ESP
inline constexpr u32 flat_data = 8;   // DS, ES and SS are flat with base 0
inline constexpr u32 flat_code = 16;  // so is CS
inline constexpr u32 single = 32;     // interpreter: one instruction only, no debugger's breakpoints
}  // namespace key

u32 mode_key(const cpu::Vcpu& cpu);  // of the mode that cpu is in now

}  // namespace trapline::engine
