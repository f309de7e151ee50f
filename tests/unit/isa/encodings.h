// All of Zydis' instructions, found by decoding every opcode of every map under every mandatory prefix.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "isa/insn.h"

namespace trapline::isa {

struct Decoded {
  ZydisDecodedInstruction insn;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
};

// By a decoder with every extension on, unlike isa::decode's.
std::optional<Decoded> decode_all(std::span<const u8> bytes, CodeSize size);

using Visitor = std::function<void(const ZydisDecodedInstruction&, const ZydisDecodedOperand*)>;

// One call per mnemonic, mode, class of operands and kind of branch.
void for_each_encoding(const Visitor& visit);

// The bytes of the visit under way.
std::vector<u8> current_encoding();

}  // namespace trapline::isa
