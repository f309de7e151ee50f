// Vector instructions whose elements lie anywhere, by thunk, and those that store some of the bytes at RDI.
#include "engine/emit/vector_forms.h"
#include "engine/hostcode/lower.h"
#include "engine/vector/features.h"
#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

namespace {

// What is above the bytes loaded becomes 0.
void load_vector(Emitter& e, unsigned bytes, u8 reg, const u8* from) {
  bytes == 8 ? vmovq(e, reg, var(from)) : vmovups(e, width_of(bytes), reg, var(from));
}

// R11: which elements of the VEX mask `reg` are active, or of the opmask.
void read_mask(Emitter& e, const VectorOp& op) {
  if (op.flags & vector::flag::evex) return kmovw_to_gpr(e, r11, op.mask_reg);
  const Width width = op.count * op.element_bytes > 16 ? Width::ymm : Width::xmm;
  vmovmsk(e, width, op.element_bytes == 8, r11, op.mask_reg);
}

void clear_mask(Emitter& e, const VectorOp& op) {
  const u8 reg = op.mask_reg;
  op.flags& vector::flag::evex ? kxorw(e, reg, reg, reg) : vxorps(e, reg, reg, reg);
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
  vmovups(e_, width_of(whole(indices)), var(to.index), m.index);
  vmovups(e_, width_of(whole(data)), var(to.data), op.data_reg);
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
