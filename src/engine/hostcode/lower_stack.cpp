// PUSH, POP, LEAVE and ENTER.
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

void Lowering::push(const TranslatedInsn& p) {
  const isa::Operand& op = p.insn.op[0];
  const u8 size = p.insn.operand_bytes;
  if (op.kind == Kind::mem) {
    e_.load_sized(size, r11, memory_access(p, size, false));
    e_.store(var(&state_.tmp), r11);
  }
  const Mem top = stack_access(p, true, size);
  if (op.kind == Kind::imm) {
    e_.store_imm32(top, static_cast<u32>(p.insn.imm), size == 8);
  } else {
    u8 value = r11;
    if (op.kind == Kind::mem)
      e_.load(r11, var(&state_.tmp));
    else
      value = host_or_load(op.reg, r11);
    e_.store_sized(size, top, value);
  }
  move_rsp(-size);
}

void Lowering::pop(const TranslatedInsn& p) {
  if (p.insn.op[0].kind == Kind::mem) return pop_to_memory(p);
  const u8 size = p.insn.operand_bytes;
  const u8 guest = p.insn.op[0].reg;
  const u8 to = kHost[guest] == kNone ? u8{r11} : kHost[guest];
  e_.load_sized(size, to, stack_access(p, false, size));
  if (guest == isa::rsp) return;
  if (to == r11) e_.store_sized(size == 2 ? 2 : 8, gpr(guest), r11);
  move_rsp(size);
}

// An address by RSP is that behind the pop (SDM Vol. 2B POP).
void Lowering::pop_to_memory(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  e_.load_sized(size, r11, stack_access(p, false, size));
  e_.store(var(&state_.tmp), r11);
  islands(56);
  popped_ = p.insn.mem.base == isa::rsp ? size : 0;
  const Mem to = memory_access(p, size, true);
  popped_ = 0;
  e_.load(r11, var(&state_.tmp));
  e_.store_sized(size, to, r11);
  move_rsp(size);
}

void Lowering::leave(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem = {.seg = Seg::ss, .base = isa::rbp, .address_bytes = size, .bytes = size};
  Place place{.base = rbp};
  if (!context_.bits64) e_.lea(r10, at(rbp), false), place.base = r10;
  e_.load_sized(size, r11, reach(place, size, false, p.stack, s));
  e_.lea(rsp, at(rbp, size), context_.bits64);
  e_.mov(rbp, r11, size == 8);
}

// Level 0 pushes the frame pointer, level 1 the new one behind it. The new top must be writable as if it were pushed to
// (SDM Vol. 2A ENTER): it is read, so that an address that is not canonical faults.
void Lowering::enter(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  const i32 pushed = (p.insn.imm2 & 31) == 1 ? 2 * size : size;
  const i32 top = -pushed - static_cast<i32>(p.insn.imm & 0xffff);
  const Mem end = below_rsp_access(p, top, 1, p.memory);
  e_.movzx8(rcx, end);
  islands(56);
  const Mem frame = below_rsp_access(p, -pushed, static_cast<unsigned>(pushed), p.stack);
  Mem upper = frame;
  upper.disp += pushed - size;
  e_.store_sized(size, upper, rbp);
  e_.lea(rbp, at(rsp, -size), context_.bits64);
  if (pushed > size) e_.store_sized(size, frame, rbp);
  e_.lea(rsp, at(rsp, top), context_.bits64);
}

// A store of `size` bytes at RSP + disp.
Mem Lowering::below_rsp_access(const TranslatedInsn& p, i32 disp, unsigned size, const SharedLookup& share) {
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem = {.seg = Seg::ss, .base = isa::rsp, .address_bytes = stack_bytes(), .disp = disp};
  const Place place = stack_place(disp);
  return reach(place, size, true, share, s);
}

}  // namespace trapline::engine::hostcode
