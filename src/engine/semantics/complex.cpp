#include "engine/semantics/complex.h"

#include "isa/traits.h"

namespace trapline::engine::semantics {

bool offered(const Vcpu& cpu, const Insn& insn) {
  const char* feature = isa::traits(insn.mnemonic).feature;
  return !feature || !cpu.cpuid || cpu.cpuid->has(feature);
}

cpu::Semantic find_complex(const Vcpu& cpu, const Insn& insn) {
  if (!offered(cpu, insn)) return nullptr;
  for (const auto find : {find_string, find_complex_exchange, find_complex_bits, find_complex_arithmetic,
                          find_complex_stack, find_complex_branch, find_complex_memory})
    if (const cpu::Semantic s = find(insn)) return s;
  return nullptr;
}

}  // namespace trapline::engine::semantics
