// --scan-report: the log of executed instructions, memory that the core writes and the monitor treats as hostile.
#pragma once

#include <atomic>

#include "base/addr.h"

namespace trapline::channel {

struct ExecutedInsn {
  Gva gva;      // of its first byte
  u16 row = 0;  // isa::RowId
  u8 length = 0, bits = 0, cpl = 0;
  u8 bytes[15] = {};
  char text[68] = {};  // disassembled, NUL-terminated: the monitor decodes no guest bytes
};
static_assert(sizeof(ExecutedInsn) == 96);

struct ExecutedLog {
  static constexpr u32 kCapacity = 1 << 17;
  std::atomic<u32> count;  // goes on counting when the log is full
  u32 unused[15];
  ExecutedInsn insn[kCapacity];
};

}  // namespace trapline::channel
