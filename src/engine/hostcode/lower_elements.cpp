// Vector instructions whose elements lie anywhere, by thunk, and those that store some of the bytes at RDI.
#include "engine/hostcode/lower.h"
#include "engine/vector/features.h"
#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

namespace {

enum class Prefix : u8 { none, operand_size, f3 };  // pp of VEX and EVEX

// VEX or EVEX of map 0F, whichever the registers need, for vectors of `bytes`.
void vector_op(Emitter& e, Prefix pp, bool wide, unsigned bytes, u8 opcode, u8 reg, const Mem& m) {
  const unsigned length = bytes == 64 ? 2 : bytes == 32 ? 1 : 0;
  if (reg < 16 && length < 2)
    e.put(0xC4, (reg & 8 ? 0 : 0x80) | 0x61, (wide ? 0x80 : 0) | 0x78 | length << 2 | static_cast<u8>(pp), opcode);
  else
    e.put(0x62, (reg & 8 ? 0 : 0x80) | 0x60 | (reg & 16 ? 0 : 0x10) | 1, (wide ? 0x80 : 0) | 0x7C | static_cast<u8>(pp),
          length << 5 | 8, opcode);
  e.modrm(reg, m);
}

void store_vector(Emitter& e, unsigned bytes, const u8* to, u8 reg) {
  vector_op(e, Prefix::none, false, bytes, 0x11, reg, var(to));  // (V)MOVUPS
}

// What is above the bytes loaded becomes 0.
void load_vector(Emitter& e, unsigned bytes, u8 reg, const u8* from) {
  if (bytes == 8)
    vector_op(e, Prefix::f3, reg >= 16, 16, 0x7E, reg, var(from));  // VMOVQ
  else
    vector_op(e, Prefix::none, false, bytes, 0x10, reg, var(from));
}

// R11: which elements of the VEX mask `reg` are active, or of the opmask.
void read_mask(Emitter& e, const VectorOp& op) {
  if (op.flags & vector::flag::evex) return e.put(0xC5, 0x78, 0x93, 0xC0 | (r11 & 7) << 3 | op.mask_reg);  // KMOVW
  const unsigned length = op.count * op.element_bytes > 16;
  e.put(0xC4, op.mask_reg & 8 ? 0x41 : 0x61, 0x78 | length << 2 | (op.element_bytes == 8), 0x50,  // VMOVMSKPS, -PD
        0xC0 | (r11 & 7) << 3 | (op.mask_reg & 7));
}

void clear_mask(Emitter& e, const VectorOp& op) {
  const u8 reg = op.mask_reg;
  if (op.flags & vector::flag::evex)
    e.put(0xC5, (~reg & 15u) << 3 | 0x84, 0x47, 0xC0 | reg << 3 | reg);  // KXORW
  else
    e.put(0xC4, reg & 8 ? 0x41 : 0xE1, (~reg & 15u) << 3, 0x57, 0xC0 | (reg & 7) << 3 | (reg & 7));  // VXORPS
}

}  // namespace

// Copies of indices, mask and data for the thunk, which finds what is gathered there too.
void Lowering::each_element(const TranslatedInsn& p) {
  const VectorOp& op = p.vector;
  const isa::MemOperand& m = p.insn.mem;
  const bool gathers = static_cast<vector::Kind>(op.kind) == vector::Kind::gather;
  const unsigned data = op.count * op.element_bytes, indices = op.count * op.index_bytes;
  const auto whole = [](unsigned bytes) { return bytes < 16 ? 16u : bytes; };
  State::Elements& to = state_.elements;
  ExitStub& s = called_site(p, ExitStub::Kind::vector);
  if (!memory_.thunk(s, context_.bits64)) return call_out(p, ExitStub::Kind::vector);
  s.by_thunk = true;
  store_vector(e_, whole(indices), to.index, m.index);
  store_vector(e_, whole(data), to.data, op.data_reg);
  read_mask(e_, op);
  islands(56);
  e_.store(var(&to.active), r11);
  e_.store_imm32(var(&to.exist), (1u << op.count) - 1, true);
  if (m.base == isa::kNoReg)
    e_.mov_imm(r10, static_cast<u64>(m.disp));
  else
    e_.lea(r10, at(host_or_load(m.base, r10), static_cast<i32>(m.disp)));
  jump_cold(s);
  flush_islands();
  s.hit = e_.pc();
  if (gathers) load_vector(e_, data, op.data_reg, to.data);
  clear_mask(e_, op);
  s.resume = e_.pc();
}

// MASKMOVDQU and MASKMOVQ. A byte is read first, so that an address that is not canonical faults before RDI has another.
void Lowering::masked_bytes(const TranslatedInsn& p) {
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem = {.base = isa::rdi, .address_bytes = p.insn.address_bytes, .bytes = p.vector.mem_bytes};
  Place place{.base = rdi};
  if (p.insn.address_bytes != 8) {
    e_.lea(r10, at(rdi), false);
    place.base = r10;
  }
  const Mem m = reach(place, p.vector.mem_bytes, true, {}, s);
  islands(56);
  e_.lea(r11, m);
  e_.movzx8(rcx, at(r11));
  e_.mov(r10, rdi);
  e_.mov(rdi, r11);
  reencode(p.raw, p.insn.bytes.data(), guest_fields(p.raw), e_);
  e_.mov(rdi, r10);
}

}  // namespace trapline::engine::hostcode
