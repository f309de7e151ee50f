// The instructions that a vCPU executed last, read back from its trail (cpu/trail.h).
#pragma once

#include <string>
#include <vector>

#include "cpu/vcpu.h"

namespace trapline::core {

struct Executed {
  Gva linear;
  std::string text;  // disassembled from memory as it is now
};

// At most `most`, oldest first; the last one is the last that retired. cpu.rip and cpu.retired must be exact. Where
// memory is gone or is no code by now, one line says how many instructions it hides.
std::vector<Executed> executed_last(const cpu::Vcpu& cpu, std::size_t most);

// As many bytes from `linear` as are mapped, at most `wanted`.
std::vector<u8> code_bytes(const cpu::Vcpu& cpu, Gva linear, std::size_t wanted);

}  // namespace trapline::core
