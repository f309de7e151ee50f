// Which instructions sequences may hold, and which of them the host has. The rest is tested by hand-written guests:
// their outcome depends on the host's kernel.
#include "engine/vector/features.h"
#include "fuzz/forms.h"
#include "isa/traits.h"

namespace trapline::fuzz {

namespace {

// What the host offers a guest: its own features where they are executed by it.
const cpu::Cpuid& host_policy() {
  static const cpu::Cpuid policy = *cpu::Cpuid::make({});
  return policy;
}

// XSAVE is virtualized in software: a guest has it whatever the host has.
bool host_saves() {
  static const bool value = cpu::HostCpu::real().xcr0 != 0;
  return value;
}

// Of those that are not the vector unit's: the feature that executes them; null: all hosts do.
const char* feature_of(ZydisISAExt ext) {
  switch (ext) {
    case ZYDIS_ISA_EXT_ADOX_ADCX:
      return "adx";
    case ZYDIS_ISA_EXT_BMI1:
      return "bmi1";
    case ZYDIS_ISA_EXT_BMI2:
      return "bmi2";
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
      return "clflushopt";
    case ZYDIS_ISA_EXT_CLWB:
      return "clwb";
    case ZYDIS_ISA_EXT_LZCNT:
      return "abm";
    case ZYDIS_ISA_EXT_MOVBE:
      return "movbe";
    default:
      return nullptr;
  }
}

bool known_extension(ZydisISAExt ext) {
  switch (ext) {
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
    case ZYDIS_ISA_EXT_CLFSH:
    case ZYDIS_ISA_EXT_CLWB:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_MOVDIR:
    case ZYDIS_ISA_EXT_PAUSE:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_RDWRFSGS:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_SMAP:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_X87:
      return true;
    // Not XSAVEOPT and XSAVEC: what they write follows from which components the processor believes to be in use or
    // modified (SDM Vol. 1 13.6), and it may believe so of more than are.
    case ZYDIS_ISA_EXT_XSAVE:
      return host_saves();
    default:
      return false;
  }
}

// Ways out to the host's kernel or the hypervisor below it; identity, time and the descriptor tables' contents; the FS
// base, which is the C library's. With an empty mask some of Intel's byte stores fault at some addresses, others never
// (SDM Vol. 2B: implementation dependent); AMD's check the whole operand always.
bool host_business(ZydisMnemonic m) {
  const isa::Traits& traits = isa::traits(m);
  return traits.has(isa::trait::host_state) ||
         (traits.has(isa::trait::unsettled) && isa::host_vendor() == isa::Vendor::intel);
}

// The environment images hold the host's segment selectors, and 32-bit halves of pointers.
bool loads_segment(const Decoded& d) {
  for (unsigned i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.operands[i];
    if (op.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(op.reg.value) == ZYDIS_REGCLASS_SEGMENT &&
        (op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
      return true;
  }
  return false;
}

}  // namespace

bool admissible(const Decoded& d) {
  const ZydisDecodedInstruction& i = d.insn;
  if (!known_extension(i.meta.isa_ext) || host_business(i.mnemonic) || loads_segment(d)) return false;
  if (i.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return false;
  if (i.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) return false;
  for (unsigned p = 0; p < i.raw.prefix_count; p++)
    if (i.raw.prefixes[p].value == 0x64) return false;
  // INT 0x80 is a system call; the others are gates that user code may not pass. Exceptions from 22 on are nobody's or a
  // hypervisor's own, which may take them as it likes.
  const u64 vector = i.mnemonic == ZYDIS_MNEMONIC_INT ? i.raw.imm[0].value.u : 0;
  if (vector == 0x80 || (vector >= 22 && vector < 32)) return false;
  // A hypervisor that runs the host's kernel deprivileged meets every INT n itself, and may take prefixes for #UD.
  if (i.mnemonic == ZYDIS_MNEMONIC_INT && i.length != 2) return false;
  return true;
}

bool host_executes(const ZydisDecodedInstruction& insn) {
  const u64 needed = engine::vector::required_features(insn.meta.isa_set);
  if (needed != ~u64{0}) return (engine::vector::host_features() & needed) == needed;
  const char* feature = feature_of(insn.meta.isa_ext);
  // Vector sets that nobody is offered, Xeon Phi's among them, are the unit's kNever.
  if (!feature) return insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || insn.meta.isa_ext == ZYDIS_ISA_EXT_BASE;
  return host_policy().has(feature);
}

bool saves_state(ZydisMnemonic mnemonic) { return isa::traits(mnemonic).has(isa::trait::saves_state); }

// Ends a sequence at CPL 3, whatever its operands.
static bool always_faults(const ZydisDecodedInstruction& insn) {
  if (insn.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) return true;
  switch (insn.meta.category) {
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
      return true;
    default:
      break;
  }
  return isa::traits(insn.mnemonic).has(isa::trait::faults_in_ring3);
}

std::string extension_of(const ZydisDecodedInstruction& insn) {
  if (always_faults(insn)) return "privileged";
  switch (insn.meta.isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_PAUSE:
    case ZYDIS_ISA_EXT_SMAP:
    case ZYDIS_ISA_EXT_RDWRFSGS:
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
    case ZYDIS_ISA_EXT_CLFSH:
    case ZYDIS_ISA_EXT_CLWB:
    case ZYDIS_ISA_EXT_MOVDIR:
    case ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH:
      return "integer";

    case ZYDIS_ISA_EXT_ADOX_ADCX:
      return "ADX";
    case ZYDIS_ISA_EXT_AVX2GATHER:
      return "AVX2 gather";
    case ZYDIS_ISA_EXT_AVXAES:
      return "AES";
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX: {
      const std::string set = ZydisISASetGetString(insn.meta.isa_set);
      // "AVX512BW_256" -> "AVX512BW"; "AVX512_VBMI2_128" -> "AVX512_VBMI2"
      const auto cut = set.find_last_of('_');
      const bool width = cut != std::string::npos && cut + 1 < set.size() && set[cut + 1] >= '0' && set[cut + 1] <= '9';
      const auto kind = set.find("_KOP");
      if (kind != std::string::npos) return set.substr(0, kind);
      const auto scalar = set.find("_SCALAR");
      if (scalar != std::string::npos) return set.substr(0, scalar);
      return width ? set.substr(0, cut) : set;
    }
    default:
      return ZydisISAExtGetString(insn.meta.isa_ext);
  }
}

}  // namespace trapline::fuzz
