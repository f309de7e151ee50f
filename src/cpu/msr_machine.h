// MSRs that describe the machine, switch what nothing can observe, or report machine checks.
#pragma once

#include <optional>

#include "cpu/vcpu.h"

namespace trapline::cpu {

// Nothing: not one of these registers. A write's result: false for reserved values, #GP(0).
std::optional<u64> read_machine_msr(const Vcpu& cpu, u32 index);
std::optional<bool> write_machine_msr(Vcpu& cpu, u32 index, u64 value);

}  // namespace trapline::cpu
