#include "engine/interpret/complex.h"

namespace trapline::engine::interpret {

namespace {

// The CPUID feature that offers the instruction, or null.
const char* feature_of(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_MOVBE:
      return "movbe";
    case ZYDIS_MNEMONIC_CRC32:
      return "sse4_2";
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
      return "adx";
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
      return "bmi1";
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_MULX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
      return "bmi2";
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      return "cx16";
    case ZYDIS_MNEMONIC_MOVDIRI:
      return "movdiri";
    case ZYDIS_MNEMONIC_MOVDIR64B:
      return "movdir64b";
    default:
      return nullptr;
  }
}

}  // namespace

bool offered(const Vcpu& cpu, const Insn& insn) {
  const char* feature = feature_of(insn.mnemonic);
  return !feature || !cpu.cpuid || cpu.cpuid->has(feature);
}

cpu::Semantic find_complex(const Vcpu& cpu, const Insn& insn) {
  if (!offered(cpu, insn)) return nullptr;
  for (const auto find : {find_string, find_complex_exchange, find_complex_bits, find_complex_arithmetic,
                          find_complex_stack, find_complex_branch, find_complex_memory})
    if (const cpu::Semantic s = find(insn)) return s;
  return nullptr;
}

}  // namespace trapline::engine::interpret
