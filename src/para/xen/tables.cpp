// Page-table entries of a guest: what they may name, and the references that they hold.
#include <utility>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "para/xen/frames.h"

namespace trapline::para::xen {

namespace {

// An entry above level 1 that maps a page itself is not for guests; neither is a global table.
constexpr u64 kNotAboveL1 = pte::large | pte::global;

bool hypervisor_slot(unsigned level, unsigned index) {
  return level == 4 && index >= kFirstHypervisorSlot && index <= kLastHypervisorSlot;
}

u64 load(const u64* entry) { return __atomic_load_n(entry, __ATOMIC_RELAXED); }

// Does a translation that was made of `old` claim what `now` does not grant, or hide a use that is to be told?
bool loses(u64 old, u64 now) {
  if (!(old & pte::present)) return false;
  constexpr u64 kWhere = pte::present | pte::user | pte::address | pte::large;
  constexpr u64 kRights = pte::writable | pte::accessed | pte::dirty;
  return ((old ^ now) & kWhere) || (old & ~now & kRights) || (now & ~old & pte::nx);
}

}  // namespace

u64 Frames::adjusted(u64 entry) { return entry & pte::present ? entry | pte::user : entry; }

void Frames::mark_upper(Mfn mfn, unsigned level) {
  if (std::exchange(frame_[mfn.raw].upper, true) || level == 1) return;
  const u64* entries = table(mfn);
  for (unsigned i = 0; i < kEntries; i++)
    if (const u64 entry = load(entries + i); entry & pte::present) mark_upper(pte::mfn(entry), level - 1);
}

// Counted already.
void Frames::note_parent(Mfn mfn, Mfn table, unsigned index, bool upper_l4) {
  Frame& f = frame_[mfn.raw];
  const u16 slot = static_cast<u16>(1 + index);
  if (upper_l4) aliased_ |= f.slot != 0 && f.slot != slot;
  f.shared |= f.types - f.pinned > 1 && (f.slot != slot || f.parent != table.raw);
  f.slot = slot;
  f.parent = static_cast<u32>(table.raw);
}

// The linear address that this entry of a level-1 table of the upper half maps, where there is one only; else 0. All
// level-4 tables may name a level-3 table, at the same place.
Gva Frames::only_address(unsigned level, Mfn table, unsigned index) const {
  if (level != 1 || aliased_) return {};
  const Frame& l1 = frame_[table.raw];
  const Frame& l2 = frame_[l1.parent];
  const Frame& l3 = frame_[l2.parent];
  if (l1.slot == 0 || l1.shared || l2.slot == 0 || l2.shared || l3.slot <= kEntries / 2) return {};
  return Gva{u64{0xffff} << 48 | u64{l3.slot - 1u} << 39 | u64{l2.slot - 1u} << 30 | u64{l1.slot - 1u} << 21 |
             u64{index} << 12};
}

std::optional<std::array<Gva, Frames::kMostPages>> Frames::changed_pages(u64 from, u64 to) const {
  if (to - from > kMostPages) return {};
  std::array<Gva, kMostPages> pages{};
  for (u64 i = from; i != to; i++) {
    const u64 page = changed_[i % changed_.size()].load(std::memory_order_relaxed);
    if (page == 0) return {};
    pages[i - from] = Gva{page};
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  if (upper_changes() - from > kMostPages) return {};  // they may have been overwritten meanwhile
  return pages;
}

bool Frames::get_entry(cpu::Vcpu& cpu, u64 entry, unsigned level, Mfn table, unsigned index) {
  const Mfn mfn = pte::mfn(entry);
  if (level > 1) {
    if ((entry & kNotAboveL1) || !get(cpu, mfn, table_type(level - 1))) return false;
    const bool is_upper = upper(level, table, index);
    note_parent(mfn, table, index, is_upper && level == 4);
    if (is_upper) mark_upper(mfn, level - 1);
    return true;
  }
  if (entry & pte::writable) return get(cpu, mfn, Type::writable);
  if (layout_.shared(mfn)) return true;
  if (!owned(mfn) || frame_[mfn.raw].refs == ~u32{0}) return false;
  frame_[mfn.raw].refs++;
  return true;
}

void Frames::put_entry(cpu::Vcpu& cpu, u64 entry, unsigned level) {
  const Mfn mfn = pte::mfn(entry);
  if (level > 1) return put(cpu, mfn, table_type(level - 1));
  if (entry & pte::writable) return put(cpu, mfn, Type::writable);
  if (owned(mfn)) frame_[mfn.raw].refs--;
}

void Frames::put_hypervisor_slots(u64* l4) {
  for (unsigned i = kFirstHypervisorSlot; i <= kLastHypervisorSlot; i++) l4[i] = 0;
  constexpr u64 kBits = pte::present | pte::accessed;
  l4[kHypervisorStart.raw >> 39 & 511] = gpa(layout_.m2p_l3).raw | kBits | pte::user;
  l4[kTablesStart.raw >> 39 & 511] = gpa(layout_.tables_l3).raw | kBits | pte::writable;
}

bool Frames::validate_table(cpu::Vcpu& cpu, Mfn mfn, unsigned level) {
  u64* entries = table(mfn);
  for (unsigned i = 0; i < kEntries; i++) {
    if (hypervisor_slot(level, i)) continue;
    const u64 entry = adjusted(load(entries + i));
    if (!(entry & pte::present)) continue;
    if (!get_entry(cpu, entry, level, mfn, i)) {
      TRACE(mmu, "xen: table {:#x} of level {}: entry {} ({:#x}) is refused", mfn, level, i, entry);
      release_entries(cpu, mfn, level, 0, i);
      return false;
    }
    __atomic_store_n(entries + i, entry, __ATOMIC_RELAXED);
  }
  if (level == 4) put_hypervisor_slots(entries);
  return true;
}

void Frames::release_entries(cpu::Vcpu& cpu, Mfn mfn, unsigned level, unsigned from, unsigned end) {
  const u64* entries = table(mfn);
  for (unsigned i = from; i < end; i++) {
    const u64 entry = load(entries + i);
    if ((entry & pte::present) && !hypervisor_slot(level, i)) put_entry(cpu, entry, level);
  }
}

// The walk of another vCPU may set accessed and dirty bits at any time; everything else of an entry changes under the
// domain's lock.
bool Frames::swap(cpu::Vcpu& cpu, Mfn table_mfn, unsigned index, u64 value, bool keep, const u64* expected,
                  bool* stored) {
  const unsigned level = static_cast<unsigned>(frame_[table_mfn.raw].type);
  INVARIANT(level >= 1 && level <= 4 && frame_[table_mfn.raw].types != 0, "frame {:#x} is no table", table_mfn);
  if (hypervisor_slot(level, index)) return false;
  u64* at = table(table_mfn) + index;
  value = adjusted(value);
  constexpr u64 kUsed = pte::accessed | pte::dirty;
  u64 old = load(at);
  if (expected && old != *expected) {
    *stored = false;
    return true;
  }
  // The same frame with the same rights: the references stay as they are.
  constexpr u64 kCounted = pte::present | pte::writable | pte::address | pte::large | pte::global;
  const bool same = ((old ^ value) & kCounted) == 0 && (old & pte::present);
  if (!same && (value & pte::present) && !get_entry(cpu, value, level, table_mfn, index)) {
    TRACE(mmu, "xen: entry {:#x} of level {} refused in {:#x}[{}]", value, level, table_mfn, index);
    return false;
  }
  u64 now;
  for (;;) {
    now = keep ? value | (old & kUsed) : value;
    if (__atomic_compare_exchange_n(at, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) break;
    if (expected && old != *expected) {
      if (!same && (value & pte::present)) put_entry(cpu, value, level);
      *stored = false;
      return true;
    }
  }
  TRACE(mmu, "xen: table {:#x}[{}] of level {}: {:#x} -> {:#x}", table_mfn, index, level, old, value);
  if (upper(level, table_mfn, index) && loses(old, now)) {
    const u64 number = upper_changes_.load(std::memory_order_relaxed);
    changed_[number % changed_.size()].store(only_address(level, table_mfn, index).raw, std::memory_order_relaxed);
    upper_changes_.store(number + 1, std::memory_order_release);
  }
  if (!same && (old & pte::present)) put_entry(cpu, old, level);
  if (stored) *stored = true;
  return true;
}

bool Frames::write_entry(cpu::Vcpu& cpu, Mfn table_mfn, unsigned index, u64 value, bool keep) {
  return swap(cpu, table_mfn, index, value, keep, nullptr, nullptr);
}

bool Frames::replace_entry(cpu::Vcpu& cpu, Mfn table_mfn, unsigned index, u64 expected, u64 value, bool* stored) {
  return swap(cpu, table_mfn, index, value, false, &expected, stored);
}

}  // namespace trapline::para::xen
