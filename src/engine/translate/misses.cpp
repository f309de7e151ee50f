// Accesses that found no slot: it is filled, or the access is made by other means.
#include "engine/translate/translator.h"

#include "base/invariant.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

// Fills the slot, or leaves the instruction to the interpreter: device memory, page crossings, faults, code pages.
Resume Translator::miss(ExitStub& site, bool vectors) {
  cpu::Seg seg = cpu::Seg::ss;
  u64 offset;
  switch (site.operand) {
    case Operand::push:
      offset = cpu_.gpr[isa::rsp] - site.size;
      break;
    case Operand::pop:
      offset = cpu_.gpr[isa::rsp];
      break;
    case Operand::linear:  // of flat segments, or with the base in it
      seg = cpu::Seg::ds;
      offset = region_->state().t0;
      break;
    default:
      seg = site.mem.seg;
      offset = cpu::effective_address(cpu_, site.mem, cpu_.rip + site.length);
  }
  u64 linear;
  const cpu::Access access = site.write ? cpu::Access::write : cpu::Access::read;
  if (!cpu::to_linear(cpu_, seg, offset & cpu_.linear_mask, site.size, access, linear)) return leave(ExitReason::one);
  // An entry of another view's rights would stay there (STAC in the middle of a block): --verify would not see it.
  INVARIANT(view_ == view_of(cpu_), "a look-up of view {} where the mode asks for {}", static_cast<int>(view_),
            static_cast<int>(view_of(cpu_)));
  views_->touch(view_, linear);
  // A shared look-up may have begun in the MiB before.
  if ((linear & (MiB - 1)) < SharedLookup::kSpan) views_->touch(view_, linear - SharedLookup::kSpan);
  if (((linear + site.size - 1) ^ linear) >> 12) {
    if (site.write) return reach_both(site, seg, linear) ? Resume{site.resume, vectors} : leave(ExitReason::one);
    if (!gather(site, seg, linear)) return leave(ExitReason::one);
    return {thunks_.gathered, vectors};
  }
  const u32 need = site.write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, site.size, need)) {
    const bool reachable = cpu::probe(cpu_, seg, linear, site.size, access);
    cpu_.debug_hits = 0;
    if (!reachable || !cpu::tlb_lookup(cpu_, linear, site.size, need)) return leave(ExitReason::one);
  }
  return fill(linear) ? Resume{site.resume, vectors} : leave(ExitReason::one);
}

// From the TLB, which has it. False: there is no entry that would say so.
bool Translator::fill(u64 linear) {
  const cpu::TlbEntry& e = cpu_.tlb->half[linear >> 63][linear >> 12 & (cpu::Tlb::kEntries - 1)];
  if (e.addend == 0) return false;  // means "no entry" in the tables
  const bool read = e.perm & cpu_.need_read, write = e.perm & cpu_.need_write;
  if (!misfill(linear, e.addend, write))
    views_->fill(view_, linear, e.gpa, e.addend, e.global, e.page_shift, read, write);
  if (block_by_block_) filled_.push_back({view_, linear});
  if (block_by_block_ && write) writable_.push_back({view_, linear});
  return true;
}

// For tests of --verify. False: the entry is to be a right one.
bool Translator::misfill(u64 linear, u64 addend, bool write) {
  const Miscompile& wrong = options_.miscompile;
  if ((linear ^ wrong.address) & kPageMask) return false;
  if (wrong.how != Miscompile::How::reach && wrong.how != Miscompile::How::stale) return false;
  for (unsigned v = 0; v < kViews; v++) {
    const View view = static_cast<View>(v);
    if (view != view_ && wrong.how == Miscompile::How::stale) continue;
    views_->touch(view, linear);
    views_->plant(view, linear, addend, write || wrong.how == Miscompile::How::reach);
    filled_.push_back({view, linear});
  }
  return true;
}

// A load over the end of a page of RAM: from a copy of the bytes, which is as much aligned as they are. It is no single
// access anyway.
bool Translator::gather(const ExitStub& site, cpu::Seg seg, u64 linear) {
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & (kPageSize - 1)));
  const u64 second = (linear + first) & cpu_.linear_mask;
  const auto look = [&](u64 at, unsigned size) { return cpu::tlb_lookup(cpu_, at, size, cpu_.need_read); };
  const u8 *low = look(linear, first), *high = look(second, site.size - first);
  if (!low || !high) {
    if (!cpu::probe(cpu_, seg, linear, site.size, cpu::Access::read)) return false;
    low = look(linear, first), high = look(second, site.size - first);
    if (!low || !high) return false;
  }
  // So that the thunk finds them the next time.
  for (const u64 page : {linear, second}) {
    views_->touch(view_, page);
    if (!views_->has(view_, page, false)) fill(page);
  }
  State& s = region_->state();
  u8* to = s.gathered + (linear & 63);
  std::memcpy(to, low, first);
  std::memcpy(to + first, high, site.size - first);
  s.addend = reinterpret_cast<u64>(to) - linear;
  s.hit = site.hit;
  return true;
}

// A store over the end of a page: the thunk that does it will find both pages. False: it will not.
bool Translator::reach_both(const ExitStub& site, cpu::Seg seg, u64 linear) {
  if (!memory_lowering_->thunk(site, cpu_.in_long64())) return false;
  const u64 last = linear + site.size - 1;
  if ((linear ^ last) >> 12 > 0xfffff) return false;  // around the end of memory
  const auto reachable = [&](u64 at) { return cpu::tlb_lookup(cpu_, at, 1, cpu_.need_write) != nullptr; };
  if (!reachable(linear) || !reachable(last)) {
    if (!cpu::probe(cpu_, seg, linear, site.size, cpu::Access::write)) return false;
    cpu_.debug_hits = 0;
  }
  for (const u64 at : {linear, last}) {
    if (!reachable(at)) return false;
    views_->touch(view_, at);
    if (!views_->has(view_, at, true)) fill(at);
  }
  return views_->has(view_, linear, true) && views_->has(view_, last, true);
}

// So that the thunk of a string instruction finds the page of this end the next time.
void Translator::fill_for_string(u64 linear, bool write) {
  const u32 need = write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, 1, need)) return;
  views_->touch(view_, linear);
  if (!views_->has(view_, linear, write)) fill(linear);
}

}  // namespace trapline::engine::translate
