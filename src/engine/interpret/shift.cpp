// Shifts and rotates of registers and memory. (Double shifts: complex_bits.cpp.)
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

namespace {

// ROL and ROR of a register by an immediate other than 1: OF is undefined. Intel's processors leave it alone there and
// compute one in the other forms; AMD's compute one in all. Asked of the host's own instruction, once.
bool immediate_rotate_keeps_overflow() {
  static const bool kept = [] {
    // 1 rotated left by 2 is 4: an OF that is computed from it is 0, whether by CF and the highest bit or otherwise.
    u32 value = 1;
    u8 overflow;
    asm("mov $0x7f, %%al\n\tadd $1, %%al\n\trol $2, %[v]\n\tseto %%al" : [v] "+r"(value), "=&a"(overflow) : : "cc");
    return overflow != 0;
  }();
  return kept;
}

template <class Rotate>
struct ByImmediate : Rotate {
  template <class T>
  static T apply(u16& f, T a, T b) {
    const u16 old = f;
    a = Rotate::template apply<T>(f, a, b);
    if ((static_cast<u8>(b) & (sizeof(T) == 8 ? 63 : 31)) != 1) f = static_cast<u16>((f & ~1) | (old & 1));
    return a;
  }
};

}  // namespace

Handler choose_shift(const Insn& insn, const Form& form) {
  const bool imm = form.shape == Shape::reg_imm && immediate_rotate_keeps_overflow();
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
      return choose<Shl>(form);
    case ZYDIS_MNEMONIC_SHR:
      return choose<Shr>(form);
    case ZYDIS_MNEMONIC_SAR:
      return choose<Sar>(form);
    case ZYDIS_MNEMONIC_ROL:
      return imm ? choose<ByImmediate<Rol>>(form) : choose<Rol>(form);
    case ZYDIS_MNEMONIC_ROR:
      return imm ? choose<ByImmediate<Ror>>(form) : choose<Ror>(form);
    case ZYDIS_MNEMONIC_RCL:
      return choose<Rcl>(form);
    case ZYDIS_MNEMONIC_RCR:
      return choose<Rcr>(form);
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::interpret
