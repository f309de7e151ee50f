// Every instruction encoding that sequences are made of, found by decoding all opcodes of all maps with Zydis once, and
// grouped by extension and mnemonic, so that rare instructions are drawn as often as common ones.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <string>
#include <vector>

#include "base/types.h"
#include "fuzz/rng.h"
#include "isa/insn.h"

namespace trapline::fuzz {

enum class Encoding : u8 { legacy, vex, evex };

struct Form {
  Encoding encoding = Encoding::legacy;
  u8 map = 0;  // legacy: 0 one byte, 1 0F, 2 0F38, 3 0F3A; else the encoded map number
  u8 opcode = 0;
  u8 pp = 0;  // 0 none, 1 66, 2 F3, 3 F2
  bool w = false;
  u8 l = 0;      // vector length: 128 << l
  u8 modrm = 0;  // one that decodes; mod tells register and memory forms apart
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  bool memory() const { return modrm < 0xc0; }
};

struct Extension {
  std::string name;     // "integer", "SSE2", "AVX512BW"
  unsigned weight = 0;  // relative frequency
  std::vector<std::vector<Form>> by_mnemonic;
};

// Of one code size: 16- and 32-bit code has other encodings.
class Forms {
 public:
  explicit Forms(isa::CodeSize size = isa::CodeSize::bits64);
  isa::CodeSize size() const { return size_; }
  const std::vector<Extension>& extensions() const { return extensions_; }
  std::size_t draw_extension(Rng& rng) const;  // index into extensions()
  const Form& draw(Rng& rng, std::size_t extension) const;
  std::size_t form_count() const;

 private:
  isa::CodeSize size_;
  std::vector<Extension> extensions_;
  unsigned total_weight_ = 0;
};

// An instruction as Zydis sees it.
struct Decoded {
  ZydisDecodedInstruction insn;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
};
bool decode(const u8* bytes, std::size_t size, Decoded& out, isa::CodeSize code = isa::CodeSize::bits64);

// Does the host's CPUID say that it executes this instruction's set?
bool host_executes(const ZydisDecodedInstruction& insn);
// XSAVE, XRSTOR: EDX:EAX must name components that both sides have, and the area is large.
bool saves_state(ZydisMnemonic mnemonic);

// May it be part of a sequence: of a known extension, and neither a way out of the sandbox (SYSCALL, VMCALL), nor
// something whose result is the host's own business (CPUID, RDTSC, SGDT, segment registers, XSAVE's bookkeeping)?
bool admissible(const Decoded& d);
// "integer", "AVX512VL"... for statistics.
std::string extension_of(const ZydisDecodedInstruction& insn);

}  // namespace trapline::fuzz
