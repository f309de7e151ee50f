// Accesses that found no slot: it is filled, or the access is made by other means.
#include "engine/translate/translator.h"

#include "base/invariant.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

// Fills the slot, or leaves the instruction to the interpreter: device memory, page crossings, faults, code pages.
std::optional<u64> Translator::miss(const ExitStub& stub) {
  cpu::Seg seg = cpu::Seg::ss;
  u64 offset;
  switch (stub.operand) {
    case Operand::push:
      offset = cpu_.gpr[isa::rsp] - stub.size;
      break;
    case Operand::pop:
      offset = cpu_.gpr[isa::rsp];
      break;
    case Operand::linear:  // of flat segments, or with the base in it
      seg = cpu::Seg::ds;
      offset = region_->state().t0;
      break;
    default:
      seg = stub.mem.seg;
      offset = cpu::effective_address(cpu_, stub.mem, cpu_.rip + stub.length);
  }
  Gva linear;
  const cpu::Access access = stub.write ? cpu::Access::write : cpu::Access::read;
  if (!cpu::to_linear(cpu_, seg, offset & cpu_.linear_mask, stub.size, access, linear)) return {};
  check_view();
  const View view = now().view;
  // A shared look-up may have begun in the MiB before. First: to touch one more may take all others away.
  if ((linear.raw & (MiB - 1)) < SharedLookup::kSpan)
    views_->touch(view, linear.wrapping_add(0 - u64{SharedLookup::kSpan}));
  views_->touch(view, linear);
  if (linear.wrapping_add(stub.size - 1).page() != linear.page()) {
    if (stub.write) return reach_both(stub, seg, linear) ? std::optional{stub.resume} : std::nullopt;
    return gather(stub, seg, linear) ? std::optional{executor_->thunks().gathered} : std::nullopt;
  }
  const u32 need = stub.write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, stub.size, need)) {
    const bool reachable = cpu::probe(cpu_, seg, linear, stub.size, access);
    cpu_.debug_hits = 0;
    if (!reachable || !cpu::tlb_lookup(cpu_, linear, stub.size, need)) return {};
  }
  return fill(linear) ? std::optional{stub.resume} : std::nullopt;
}

// From the TLB, which has it. False: there is no entry that would say so.
bool Translator::fill(Gva linear) {
  const cpu::TlbEntry& e = cpu_.tlb->half[linear.raw >> 63][linear.raw >> 12 & (cpu::Tlb::kEntries - 1)];
  if (e.addend == 0) return false;  // means "no entry" in the tables
  const bool read = e.perm & cpu_.need_read, write = e.perm & cpu_.need_write;
  if (!misfill(linear, e.addend, write))
    views_->fill(now().view, linear, e.gpa, e.addend, e.global, e.page_shift, read, write);
  if (executor_->block_by_block()) filled_.push_back({now().view, linear});
  if (executor_->block_by_block() && write) writable_.push_back({now().view, linear});
  return true;
}

// For tests of --verify. False: the entry is to be a right one.
bool Translator::misfill(Gva linear, u64 addend, bool write) {
  const Miscompile& wrong = options_.miscompile;
  if (linear.page() != wrong.address.page()) return false;
  if (wrong.how != Miscompile::How::reach && wrong.how != Miscompile::How::stale) return false;
  for (unsigned v = 0; v < kViews; v++) {
    const View view = static_cast<View>(v);
    if (view != now().view && wrong.how == Miscompile::How::stale) continue;
    views_->touch(view, linear);
    views_->plant(view, linear, addend, write || wrong.how == Miscompile::How::reach);
    filled_.push_back({view, linear});
  }
  return true;
}

// A load over the end of a page of RAM: from a copy of the bytes, which is as much aligned as they are. It is no single
// access anyway.
bool Translator::gather(const ExitStub& stub, cpu::Seg seg, Gva linear) {
  const unsigned first = static_cast<unsigned>(kPageSize - linear.page_offset());
  const Gva second{(linear.raw + first) & cpu_.linear_mask};
  const auto look = [&](Gva at, unsigned size) { return cpu::tlb_lookup(cpu_, at, size, cpu_.need_read); };
  const u8 *low = look(linear, first), *high = look(second, stub.size - first);
  if (!low || !high) {
    if (!cpu::probe(cpu_, seg, linear, stub.size, cpu::Access::read)) return false;
    low = look(linear, first), high = look(second, stub.size - first);
    if (!low || !high) return false;
  }
  // So that the thunk finds them the next time.
  for (const Gva page : {linear, second}) {
    views_->touch(now().view, page);
    if (!views_->has(now().view, page, false)) fill(page);
  }
  State& s = region_->state();
  u8* to = s.gathered + (linear.raw & 63);
  std::memcpy(to, low, first);
  std::memcpy(to + first, high, stub.size - first);
  s.addend = reinterpret_cast<u64>(to) - linear.raw;
  s.hit = stub.hit;
  return true;
}

// A store over the end of a page: the thunk that does it will find both pages. False: it will not.
bool Translator::reach_both(const ExitStub& stub, cpu::Seg seg, Gva linear) {
  if (!memory_lowering_->thunk(stub, cpu_.in_long64())) return false;
  const Gva last = linear.wrapping_add(stub.size - 1);
  if ((linear.raw ^ last.raw) >> 12 > 0xfffff) return false;  // around the end of memory
  const auto reachable = [&](Gva at) { return cpu::tlb_lookup(cpu_, at, 1, cpu_.need_write) != nullptr; };
  if (!reachable(linear) || !reachable(last)) {
    if (!cpu::probe(cpu_, seg, linear, stub.size, cpu::Access::write)) return false;
    cpu_.debug_hits = 0;
  }
  for (const Gva at : {linear, last}) {
    if (!reachable(at)) return false;
    views_->touch(now().view, at);
    if (!views_->has(now().view, at, true)) fill(at);
  }
  return views_->has(now().view, linear, true) && views_->has(now().view, last, true);
}

}  // namespace trapline::engine::translate
