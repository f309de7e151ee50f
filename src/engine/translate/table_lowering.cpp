#include "engine/translate/table_lowering.h"

#include <iterator>

#include "base/invariant.h"
#include "engine/hostcode/host.h"
#include "engine/translate/gather.h"
#include "engine/translate/sharing.h"
#include "engine/translate/views.h"

namespace trapline::engine::translate {

using namespace hostcode;

namespace {

// Of a look-up at the most, with the jump behind it.
u32 look_up_bytes(const HostWays& ways) { return ways.pext ? 64 : 80; }

}  // namespace

void TableLowering::prepare(const Context& context, std::vector<TranslatedInsn>& pieces) const {
  if (!debug_.no_sharing) share_lookups(context, pieces);
}

void TableLowering::emit_thunks(Emitter& out, cpu::Vcpu& cpu, u64 kernel, u64 call) {
  for (unsigned i = 0; i < std::size(gather_); i++) {
    gather_[i] = out.pc();
    emit_gather(out, state_, ways_, static_cast<u8>(8 << i), false, call);
    lead_away_[i] = out.pc();
    emit_gather(out, state_, ways_, static_cast<u8>(8 << i), true, call);
  }
  for (const bool many : {false, true}) {
    scatter_[many] = out.pc();
    emit_scatter(out, state_, many);
  }
  strings_.emit(out, cpu, state_, ways_, call);
  elements_.emit(out, state_, ways_, call);
  descriptors_.emit(out, cpu, state_, kernel, call);
}

u64 TableLowering::thunk(const ExitStub& s, bool bits64) const {
  if (debug_.no_thunks) return 0;
  if (s.kind == ExitStub::Kind::vector) return elements_.of(s.called->vector, s.mem.address_bytes);
  if (s.kind == ExitStub::Kind::semantic)
    if (const u64 thunk = descriptors_.of(s.called->insn)) return thunk;
  StringForm form;
  if (s.kind == ExitStub::Kind::semantic && string_form(s.called->insn, bits64, &form) && form.repeats)
    return strings_.of(form, bits64);
  if (s.kind != ExitStub::Kind::miss || s.size < 2 || s.size > 64 || (s.write && s.copy_bytes == 0)) return 0;
  return (s.write ? lead_away_ : gather_)[s.size <= 8 ? 0 : s.size <= 16 ? 1 : s.size <= 32 ? 2 : 3];
}

u64 TableLowering::constant(const Fixup& f, Gva linear) const {
  return Views::slot_offset(linear, f.size, f.kind == Fixup::Kind::look_up_w);
}

// As Translator::set_view and set_mode do.
void TableLowering::turn(Emitter& e, const hostcode::RunningMode& to) const {
  INVARIANT(to.tag < JumpCache::kTags, "code turns to mode {:#x}, which no jump is known in", to.mode);
  e.store_imm32(var(&state_.now.mode), to.mode, false);
  e.store_imm8(var(&state_.now.tag), to.tag);
  e.store_imm8(var(&state_.now.view), static_cast<u8>(to.view));
  e.mov_imm(rcx, reinterpret_cast<u64>(views_.jumps().victims(to.view)));
  e.store(var(&state_.victims), rcx);
  e.mov_imm(rcx, views_.base(to.view));
  e.store(var(&state_.tables), rcx);
  if (ways_.gs_base) return e.write_gs_base(rcx);
  e.mov_imm(rcx, views_.base(to.view) + Views::kWriteTable);
  e.store(var(&state_.write_table), rcx);
}

Mem TableLowering::reached(const Place& p) const {
  return p.base == kNone ? at(rcx, p.disp) : at(p.base, rcx, 0, p.disp);
}

// -- Look-ups: RCX becomes what to add to the address, or 0. Clobber R11.
void TableLowering::look_up(Emitter& e, u8 base, i32 disp, unsigned size, bool write) {
  u8 first = base;
  if (disp != 0) e.lea(first = r11, at(base, disp));
  page_sum(e, first, size);
  Mem slot = at(kNone, rcx, 3);
  if (write || !ways_.gs_base) {
    e.load(r11, var(write ? &state_.write_table : &state_.tables));
    slot = at(r11, rcx, 3);
  }
  slot.gs = ways_.gs_base;
  e.load(rcx, slot);
}

// RCX = page(first byte) + page(last byte) of the `size` bytes at `first`, which R11 may be.
void TableLowering::page_sum(Emitter& e, u8 first, unsigned size) {
  constexpr u8 kUp = 48, kDown = 28;  // rotated so that bit 47 comes to the top, shifted until bit 12 is at the bottom
  static_assert(Views::kPageBits == u64{0xfffffffff} << 12);
  const Mem mask = var(&state_.page_bits);
  if (ways_.pext)
    e.pext(rcx, first, mask);
  else
    e.rorx(rcx, first, kUp);
  if (size > 1) e.lea(r11, at(first, static_cast<i32>(size - 1)));
  if (ways_.pext) {
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

// The operand `slot` of the current view's tables.
Mem TableLowering::jump_slot(Emitter& e, Mem slot, u8 free) const {
  if (ways_.gs_base) {
    slot.gs = true;
    return slot;
  }
  e.load(free, var(&state_.tables));
  if (slot.index != kNone) {
    e.lea(slot.index, at(free, slot.index, slot.scale));
    return at(slot.index, slot.disp);
  }
  if (slot.base == kNone) return {.base = free, .no_disp8 = true, .disp = slot.disp};
  return at(slot.base, free, 0, slot.disp);
}

// Of an address that is known now.
void TableLowering::look_up_constant(Emitter& e, const Place& place, unsigned size, bool write) {
  const u64 slot = Views::slot_offset(Gva{place.address}, size, write);
  if (place.linear) {
    e.mov_imm64(r11, slot);
    e.note(write ? Fixup::Kind::look_up_w : Fixup::Kind::look_up, e.size() - 8, place.address, static_cast<u8>(size));
  } else {
    e.mov_imm(r11, slot);
  }
  const Mem slot_at = jump_slot(e, at(r11), rcx);
  e.load(rcx, slot_at);
}

void TableLowering::reach(Lowering& to, const Place& place, unsigned size, bool write, const SharedLookup& share,
                          ExitStub& s) {
  Emitter& e = to.hot();
  to.islands(share.slot == SharedLookup::kNone || share.leads ? look_up_bytes(ways_) : 16);
  if (share.slot == SharedLookup::kNone || place.constant) {
    if (place.constant)
      look_up_constant(e, place, size, write);
    else
      look_up(e, place.base, place.disp, size, write);
    to.jump_cold_if_rcx_0({.site = &s, .place = place});
    s.hit = e.pc();
    return;
  }
  const Mem shared = var(&state_.shared[share.slot]);
  if (share.leads) {
    look_up(e, place.base, place.disp + share.lo, share.span, share.write);
    e.store(shared, rcx);
  } else {
    e.load(rcx, shared);
  }
  to.jump_cold_if_rcx_0({.tail = static_cast<u32>(retries_.size())});
  s.hit = e.pc();
  retries_.push_back({place, size, write, &s, e.pc()});
}

// A shared look-up has failed: because the bytes of all lie in two pages, or because of another access's rights.
void TableLowering::tail(Lowering& to, u32 number) {
  INVARIANT(number < retries_.size(), "tail {} of {}", number, retries_.size());
  const Retry& r = retries_[number];
  Emitter& e = to.cold();
  look_up(e, r.place.base, r.place.disp, r.size, r.write);
  const auto failed = e.jrcxz();
  to.jump_hot(r.back);
  e.bind(failed);
  to.call_site(*r.site, r.place);
}

}  // namespace trapline::engine::translate
