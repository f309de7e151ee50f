// Rebuilds one decoded vector instruction for the host's 64-bit mode with its memory operand at [rsi] and its general
// registers in RAX (ModRM.reg) and RCX (ModRM.rm). Everything else (prefixes, lengths, masks, rounding, immediates) is
// kept.
#pragma once

#include <optional>

#include "engine/emit/emitter.h"
#include "isa/raw.h"

namespace trapline::engine::emit {

using Decoded = isa::Raw;

// Is it a general register?
bool is_gpr(const ZydisDecodedOperand& op);
// AH, CH, DH, BH.
bool is_high8(ZydisRegister r);
// The guest's register number (of AH: that of AX); Zydis' ids of 8-bit registers have AH..BH in between.
u8 gpr_number(ZydisRegister r);

// Registers of the host that stand for the guest's by field.
inline constexpr u8 kRegField = 0, kRmField = 1;  // RAX, RCX

// Appends the instruction. `source` are the guest's bytes that `d` was decoded from. False: this cannot be expressed (a
// bug in the rebuild or a decoder's misreading, found by decoding the result again): treat it as undefined; nothing was
// appended.
bool rebuild(const Decoded& d, const u8* source, Emitter& out);

// What W must be for the host's 64-bit mode: outside of it VEX.W and EVEX.W are ignored where they would select a 64-bit
// general register, and are an opcode bit elsewhere (SDM Vol. 2A 2.3.5.1). Nothing: there is no such instruction.
std::optional<bool> w_in_64_bit_mode(const Decoded& d, const u8* source);
// Which bits of its immediate count: outside 64-bit mode bit 7 of a register number (IS4) is ignored (SDM Vol. 2A
// 2.3.8).
u8 immediate_mask(const Decoded& d);

// The Zydis decoder for a machine mode with the extensions that are never offered switched off. `mode` is a CS size: 2,
// 4 or 8.
const ZydisDecoder& decoder_for(u8 code_bytes);

}  // namespace trapline::engine::emit
