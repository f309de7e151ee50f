// Which vector instruction sets a guest may use: what its CPUID shows and the host can execute.
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/cpuid.h"

namespace trapline::engine::vector {

// Bit set over the extensions that this unit knows; see features.cpp.
u64 host_features();
u64 guest_features(const cpu::Cpuid* policy);  // null: all of the host's

// The bits an instruction of this set needs; ~0 for sets that are never offered.
u64 required_features(ZydisISASet set);

bool host_has_avx512();    // registers and opmasks enabled by the host's OS
bool host_has_avx512bw();  // 64-bit opmasks
bool host_has_avx512vl();  // vectors shorter than 64 bytes
bool host_has_avx();

}  // namespace trapline::engine::vector
