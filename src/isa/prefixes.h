// Which bytes stand before an opcode (SDM Vol. 2A 2.1.1, 2.2.1).
#pragma once

#include "isa/insn.h"

namespace trapline::isa {

// A legacy prefix, or REX where there is one. VEX and EVEX are opcodes here.
constexpr bool is_prefix(u8 byte, CodeSize size) {
  switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
      return true;
    default:
      return size == CodeSize::bits64 && byte >> 4 == 4;
  }
}

}  // namespace trapline::isa
