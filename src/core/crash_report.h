// What the user sees when a guest dies: registers, what it executed last, its stack. Guest addresses that may have a
// name are written as @ffffffff81000000; the monitor puts the nearest System.map symbol behind them.
#pragma once

#include <string>

#include "cpu/vcpu.h"

namespace trapline::core {

std::string describe(const cpu::Vcpu& cpu);  // registers, code and stack of one vCPU
std::string crash_report(const cpu::Vcpu& cpu, const char* what);

}  // namespace trapline::core
