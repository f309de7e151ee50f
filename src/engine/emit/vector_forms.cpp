#include "engine/emit/vector_forms.h"

namespace trapline::engine::emit {

namespace {

using P = VexOp::Prefix;

constexpr u8 length(Width width) { return static_cast<u8>(width); }

// The VEX form where the registers and the width have one. `evex_wide`: W of the other.
void move(Emitter& e, VexOp op, bool evex_wide, u8 reg, const Mem& m) {
  if (reg < 16 && op.length < 2) return e.vex(op, 0, reg, m);
  op.wide = evex_wide;
  e.evex(op, reg, m);
}

}  // namespace

void movups(Emitter& e, u8 to, const Mem& from) { e.op(0, false, 0x0F10, to, from); }
void movups(Emitter& e, const Mem& to, u8 from) { e.op(0, false, 0x0F11, from, to); }

void vmovups(Emitter& e, Width width, u8 to, const Mem& from) {
  move(e, {.length = length(width), .opcode = 0x10}, false, to, from);
}
void vmovups(Emitter& e, Width width, const Mem& to, u8 from) {
  move(e, {.length = length(width), .opcode = 0x11}, false, from, to);
}
void vmovq(Emitter& e, u8 to, const Mem& from) { move(e, {.prefix = P::f3, .opcode = 0x7E}, true, to, from); }
void vmovq_to_gpr(Emitter& e, u8 to, u8 from) { e.vex({.prefix = P::x66, .wide = true, .opcode = 0x7E}, 0, from, to); }
void vxorps(Emitter& e, u8 to, u8 a, u8 b) { e.vex({.opcode = 0x57}, a, to, b); }
void vorps(Emitter& e, Width width, u8 to, u8 a, const Mem& b) {
  e.vex({.length = length(width), .opcode = 0x56}, a, to, b);
}
void vorps(Emitter& e, u8 to, u8 a, u8 b) { e.vex({.opcode = 0x56}, a, to, b); }
void vpunpckhqdq(Emitter& e, u8 to, u8 a, u8 b) { e.vex({.prefix = P::x66, .opcode = 0x6D}, a, to, b); }
void vextractf128(Emitter& e, u8 to, u8 from, u8 half) {
  e.vex({.map = VexOp::Map::m0f3a, .prefix = P::x66, .length = 1, .opcode = 0x19}, 0, from, to);
  e.byte(half);
}
void vmovmsk(Emitter& e, Width width, bool doubles, u8 to_gpr, u8 from) {
  e.vex({.prefix = doubles ? P::x66 : P::none, .length = length(width), .opcode = 0x50}, 0, to_gpr, from);
}
void vzeroupper(Emitter& e) { e.put(0xC5, 0xF8, 0x77); }

void kmovq(Emitter& e, u8 to, const Mem& from) { e.vex({.wide = true, .opcode = 0x90}, 0, to, from); }
void kmovq(Emitter& e, const Mem& to, u8 from) { e.vex({.wide = true, .opcode = 0x91}, 0, from, to); }
void kmovw(Emitter& e, u8 to, const Mem& from) { e.vex({.opcode = 0x90}, 0, to, from); }
void kmovw(Emitter& e, const Mem& to, u8 from) { e.vex({.opcode = 0x91}, 0, from, to); }
void kmovw_to_gpr(Emitter& e, u8 to, u8 from) { e.vex({.opcode = 0x93}, 0, to, from); }
void kxorw(Emitter& e, u8 to, u8 a, u8 b) { e.vex({.length = 1, .opcode = 0x47}, a, to, b); }

}  // namespace trapline::engine::emit
