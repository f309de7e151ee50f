// isa::decode in every mode: lengths are honest, a shorter look says truncated, and whatever decodes can be printed.
#include "base/invariant.h"
#include "isa/insn.h"

using namespace trapline;
using namespace trapline::isa;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  for (const CodeSize mode : {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64}) {
    Insn insn;
    if (decode(data, size, mode, isa::host_vendor(), insn) != DecodeStatus::ok) continue;
    INVARIANT(insn.length >= 1 && insn.length <= 15 && insn.length <= size, "length {} of {}", insn.length, size);
    INVARIANT(insn.operand_count <= insn.op.size(), "{} operands", insn.operand_count);
    Insn exact;
    INVARIANT(
        decode(data, insn.length, mode, isa::host_vendor(), exact) == DecodeStatus::ok && exact.length == insn.length,
        "needs bytes beyond its end");
    INVARIANT(decode(data, insn.length - 1u, mode, isa::host_vendor(), exact) == DecodeStatus::truncated,
              "decodes without its last byte");
    char text[256];
    const std::size_t n = format(insn, 0x1000, text, sizeof text);
    INVARIANT(n < sizeof text, "text of {} bytes", n);
    char tiny[4];
    format(insn, 0x1000, tiny, sizeof tiny);
  }
  return 0;
}
