// Vector instructions by name. Widths that the host lacks are the caller's to avoid; registers are 0 to 31, above 15
// with AVX-512 alone.
#pragma once

#include "engine/emit/emitter.h"

namespace trapline::engine::emit {

enum class Width : u8 { xmm, ymm, zmm };  // as VEX and EVEX have it
constexpr Width width_of(unsigned bytes) { return bytes == 64 ? Width::zmm : bytes == 32 ? Width::ymm : Width::xmm; }

// -- Legacy SSE: keep what is above the XMM register. Registers 0 to 15.
void movups(Emitter& e, u8 to, const Mem& from);
void movups(Emitter& e, const Mem& to, u8 from);

// -- VEX or EVEX: loads clear what is above the width.
void vmovups(Emitter& e, Width width, u8 to, const Mem& from);
void vmovups(Emitter& e, Width width, const Mem& to, u8 from);
void vmovq(Emitter& e, u8 to, const Mem& from);  // 8 bytes
void vmovq_to_gpr(Emitter& e, u8 to, u8 from);
void vxorps(Emitter& e, u8 to, u8 a, u8 b);  // 128 bits; registers 0 to 15 from here on
void vorps(Emitter& e, Width width, u8 to, u8 a, const Mem& b);
void vorps(Emitter& e, u8 to, u8 a, u8 b);  // 128 bits
void vpunpckhqdq(Emitter& e, u8 to, u8 a, u8 b);
void vextractf128(Emitter& e, u8 to, u8 from, u8 half);
// The elements' sign bits: of 4 bytes each, or of 8.
void vmovmsk(Emitter& e, Width width, bool doubles, u8 to_gpr, u8 from);
void vzeroupper(Emitter& e);

// -- Opmasks 0 to 7. Q: 64 bits, which needs AVX512BW; W: 16.
void kmovq(Emitter& e, u8 to, const Mem& from);
void kmovq(Emitter& e, const Mem& to, u8 from);
void kmovw(Emitter& e, u8 to, const Mem& from);
void kmovw(Emitter& e, const Mem& to, u8 from);
void kmovw_to_gpr(Emitter& e, u8 to, u8 from);
void kxorw(Emitter& e, u8 to, u8 a, u8 b);

}  // namespace trapline::engine::emit
