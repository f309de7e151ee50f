// Instructions that are known by name.
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;

void Lowering::special(const TranslatedInsn& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return push(p);
    case ZYDIS_MNEMONIC_POP:
      return pop(p);
    case ZYDIS_MNEMONIC_LEAVE:
      return leave(p);
    case ZYDIS_MNEMONIC_ENTER:
      return enter(p);
    case ZYDIS_MNEMONIC_MOV:
      if (p.insn.op[0].kind == Kind::seg) return read_descriptor(p);
      return p.insn.op[1].kind == Kind::seg ? move_selector(p) : move_offset(p);
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
      return read_descriptor(p);
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      return push_flags(p);
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      return pop_flags(p);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      return set_interrupts(p);
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
      return set_access(p);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
      return set_direction(p.insn.mnemonic == ZYDIS_MNEMONIC_STD);
    case ZYDIS_MNEMONIC_SWAPGS:
      return swap_gs();
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
      return segment_base(p);
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
      return read_tsc(p);
    case ZYDIS_MNEMONIC_XGETBV:
      return read_xcr0(p);
    case ZYDIS_MNEMONIC_CPUID:
      return identify(p);
    case ZYDIS_MNEMONIC_PAUSE:
      return pause(p);
    case ZYDIS_MNEMONIC_XLAT:
      return xlat(p);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return bit_string(p);
    default:
      break;
  }
  StringForm form;
  return string_form(p.insn, context_.bits64, &form) ? string_once(p, form) : step(p);
}

}  // namespace trapline::engine::hostcode
