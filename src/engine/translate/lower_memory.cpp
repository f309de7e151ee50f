#include "engine/translate/host.h"
#include "engine/translate/lower.h"

namespace trapline::engine::translate {

using cpu::Seg;

// -- Ways to code that is seldom run. It stands behind the block; JRCXZ reaches 127 bytes, so islands of jumps are put
// in between.
void Lowering::cold_target(const Cold& c) {
  cold_.push_back(c);
  cold_.back().at = e_.size();
  e_.imm32(0);
}

void Lowering::jump_cold(Site& s) {
  e_.byte(0xE9);
  cold_target({0, &s, nullptr, {}});
}

void Lowering::jump_cold_if_rcx_0(const Cold& c) {
  e_.byte(kJrcxz);
  pending_.push_back(c);
  pending_.back().at = e_.size();
  e_.byte(0);
}

void Lowering::flush_islands() {
  for (const Cold& c : pending_) {
    const u32 distance = e_.size() - (c.at + 1);
    if (distance > 127) failed_ = true;
    e_.patch8(c.at, static_cast<u8>(distance));
    e_.byte(0xE9);
    cold_target(c);
  }
  pending_.clear();
}

// An island goes here if the first waiting jump would be out of reach after the next `ahead` bytes.
void Lowering::islands(u32 ahead) {
  if (pending_.empty() || e_.size() - pending_.front().at + ahead + island_margin_ < 120) return;
  e_.byte(0xEB);
  const u32 at = e_.size();
  e_.byte(0);
  flush_islands();
  e_.patch8(at, static_cast<u8>(e_.size() - (at + 1)));
}

// At the most, with the jump behind it.
u32 Lowering::look_up_bytes() { return host_ways().pext ? 64 : 80; }

// -- Addresses
// The register of a general register's value, for use in an address.
u8 Lowering::host_or_load(u8 guest, u8 scratch) {
  if (kHost[guest] != kNone) return kHost[guest];
  e_.load(scratch, gpr(guest));
  return scratch;
}

// A linear address that moves with the code.
void Lowering::linear(u8 reg, u64 value) {
  if (!context_.movable) return e_.mov_imm(reg, value);
  e_.mov_imm64(reg, value);
  e_.note(Fixup::Kind::linear, e_.size() - 8, value);
}

Lowering::Place Lowering::constant_place(u64 address, bool moves) {
  if (moves && context_.movable) {
    linear(r10, address);
    return {.base = r10, .constant = true, .linear = true, .address = address};
  }
  if (address == static_cast<u64>(static_cast<i64>(static_cast<i32>(address))))
    return {.base = kNone, .disp = static_cast<i32>(address), .constant = true, .address = address};
  e_.mov_imm(r10, address);
  return {.base = r10, .constant = true, .address = address};
}

// Of insn.mem. Clobbers R11; what is in R10 must stay there until the access.
Lowering::Place Lowering::place_of(const Piece& p) {
  const isa::MemOperand& m = p.insn.mem;
  const bool wide = m.address_bytes == 8;
  const bool based = m.seg == Seg::fs || m.seg == Seg::gs;
  const bool rip = m.base == isa::kRegRip;
  if (rip || (m.base == isa::kNoReg && m.index == isa::kNoReg)) {
    const u64 a = (static_cast<u64>(m.disp) + (rip ? next_of(p) : 0)) & (wide ? ~u64{0} : 0xffffffff);
    if (rip && !wide) block_->movable = false;
    if (!based) return constant_place(a, rip && wide);
    if (rip && wide)
      linear(r10, a);
    else
      e_.mov_imm(r10, a);
  } else {
    const u8 base = m.base == isa::kNoReg ? kNone : host_or_load(m.base, r10);
    const u8 index = m.index == isa::kNoReg ? kNone : host_or_load(m.index, r11);
    const i32 disp = static_cast<i32>(m.disp) + popped_;
    if (wide && !based && index == kNone) return {.base = base, .disp = disp};
    e_.lea(r10, at(base, index, m.scale_log2, disp), wide);
  }
  if (based) {
    e_.load(r11, var(&cpu_.seg[static_cast<u8>(m.seg)].linear_base));
    e_.lea(r10, at(r10, r11, 0), context_.bits64);
  }
  return {.base = r10};
}

// RSP + disp.
Lowering::Place Lowering::stack_place(i32 disp) {
  if (context_.bits64) return {.base = rsp, .disp = disp};
  e_.lea(r10, at(rsp, disp), false);
  return {.base = r10};
}

// The access itself, once RCX holds what to add.
Mem Lowering::reached(const Place& p) { return p.base == kNone ? at(rcx, p.disp) : at(p.base, rcx, 0, p.disp); }

// -- Look-ups: RCX becomes what to add to the address, or 0. Clobber R11.
void Lowering::look_up(Emitter& e, u8 base, i32 disp, unsigned size, bool write) {
  u8 first = base;
  if (disp != 0) e.lea(first = r11, at(base, disp));
  page_sum(e, first, size);
  Mem slot = at(kNone, rcx, 3);
  if (write || !host_ways().gs_base) {
    e.load(r11, var(write ? &state_.write_table : &state_.tables));
    slot = at(r11, rcx, 3);
  }
  slot.gs = host_ways().gs_base;
  e.load(rcx, slot);
}

// RCX = page(first byte) + page(last byte) of the `size` bytes at `first`, which R11 may be.
void Lowering::page_sum(Emitter& e, u8 first, unsigned size) {
  constexpr u8 kUp = 48, kDown = 28;  // rotated so that bit 47 comes to the top, shifted until bit 12 is at the bottom
  static_assert(Views::kPageBits == u64{0xfffffffff} << 12);
  const Mem mask = var(&state_.page_bits);
  if (host_ways().pext)
    e.pext(rcx, first, mask);
  else
    e.rorx(rcx, first, kUp);
  if (size > 1) e.lea(r11, at(first, static_cast<i32>(size - 1)));
  if (host_ways().pext) {
    if (size > 1) e.pext(r11, r11, mask);
  } else {
    if (size > 1) {
      e.rorx(r11, r11, kUp);
      e.store(var(&state_.last_page), r11);
    }
    e.mov_imm(r11, kDown);
    e.shrx(rcx, rcx, r11);
    if (size > 1) e.shrx(r11, var(&state_.last_page), r11);
  }
  e.lea(rcx, at(rcx, size > 1 ? r11 : rcx, 0));
}

// The operand `offset` of the current view's tables. `free`: a register that may hold their base.
Mem Lowering::table_slot(Emitter& e, Mem offset, u8 free) {
  if (host_ways().gs_base) {
    offset.gs = true;
    return offset;
  }
  e.load(free, var(&state_.tables));
  if (offset.base == kNone) return {.base = free, .no_disp8 = true, .disp = offset.disp};
  return at(offset.base, free, 0, offset.disp);
}

// Of an address that is known now.
void Lowering::look_up_constant(const Place& place, unsigned size, bool write) {
  const u64 slot = Views::slot_offset(place.address, size, write);
  if (place.linear) {
    e_.mov_imm64(r11, slot);
    e_.note(write ? Fixup::Kind::look_up_w : Fixup::Kind::look_up, e_.size() - 8, place.address, static_cast<u8>(size));
  } else {
    e_.mov_imm(r11, slot);
  }
  const Mem slot_at = table_slot(e_, at(r11), rcx);
  e_.load(rcx, slot_at);
}

// `s`: where C++ fills the slot; it goes on at s.resume, which comes before all this.
void Lowering::reach(const Place& place, unsigned size, bool write, const Share& share, Site& s) {
  islands(share.slot == Share::kNone || share.leads ? look_up_bytes() : 16);
  s.size = static_cast<u8>(size);
  s.write = write;
  if (share.slot == Share::kNone || place.constant) {
    if (place.constant)
      look_up_constant(place, size, write);
    else
      look_up(e_, place.base, place.disp, size, write);
    jump_cold_if_rcx_0({0, &s, nullptr, place});
    s.hit = e_.pc();
    return;
  }
  const Mem shared = var(&state_.shared[share.slot]);
  if (share.leads) {
    look_up(e_, place.base, place.disp + share.lo, share.span, share.write);
    e_.store(shared, rcx);
  } else {
    e_.load(rcx, shared);
  }
  Retry& retry = retries_.emplace_back(Retry{place, size, write, &s, 0});
  jump_cold_if_rcx_0({0, nullptr, &retry, {}});
  retry.back = s.hit = e_.pc();
}

// Where the instruction's memory operand is, once RCX holds what to add.
Mem Lowering::memory_access(const Piece& p, unsigned size, bool write) {
  Site& s = site(Site::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem.disp += popped_;
  const Place place = place_of(p);
  reach(place, size, write, p.memory, s);
  return reached(place);
}

// The stack's new or present top.
Mem Lowering::stack_access(const Piece& p, bool push, unsigned size) {
  Site& s = site(Site::Kind::miss, &p);
  s.resume = e_.pc();
  s.operand = push ? Operand::push : Operand::pop;
  const Place place = stack_place(push ? -static_cast<i32>(size) : 0);
  reach(place, size, push, p.stack, s);
  return reached(place);
}

void Lowering::move_rsp(i32 by) { e_.lea(rsp, at(rsp, by), context_.bits64); }

// A shared look-up has failed: because the bytes of all lie in two pages, or because of another access's rights.
void Lowering::finish_retry(const Retry& r) {
  look_up(c_, r.place.base, r.place.disp, r.size, r.write);
  c_.put(kJrcxz, 5, 0xE9);
  c_.note(Fixup::Kind::hot, c_.size(), r.back - block_->entry);
  c_.imm32(r.back - (c_.pc() + 4));
  call_site(*r.site, r.place);
}

}  // namespace trapline::engine::translate
