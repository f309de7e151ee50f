// PAT and MTRRs. Nothing reads the types: all guest memory is cached as the host caches it. They are kept because
// kernels check them.
#pragma once

#include <optional>

#include "cpu/vcpu.h"

namespace trapline::cpu {

// Nothing: not one of these registers. A write's result: false for reserved types and bits, #GP(0).
std::optional<u64> read_memory_type_msr(const Vcpu& cpu, u32 index);
std::optional<bool> write_memory_type_msr(Vcpu& cpu, u32 index, u64 value);

// The MTRRs as firmware leaves them: write-back by default, the legacy video hole and the PCI hole below 4 GiB
// uncached. For boots without firmware: Linux gives up on PAT when it finds the MTRRs disabled. Call it for every vCPU.
void set_up_mtrrs_as_firmware(Vcpu& cpu);

}  // namespace trapline::cpu
