// The software TLB: filling, flushing, PCIDs, and taking write permission away from frames that come to hold code.
// Intel SDM Vol. 3A section 4.10. Dropping an entry is always allowed; keeping one too long never is.
#include <sys/mman.h>

#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/mmu_internal.h"

namespace trapline::cpu {

constexpr Gva kEmpty{~u64{0}};  // a tag

// -- One array

template <unsigned N>
void TlbArray<N>::put(const TlbEntry& e) {
  at(e.tag) = e;
  if (e.global)
    any_global = true;
  else if (fills++ < kList)
    filled[fills - 1] = static_cast<u16>(e.tag.raw >> 12 & (N - 1));
  if (e.page_shift >= 30) {
    huge |= u64{1} << (e.tag.raw >> 30 & 63);
  } else if (e.page_shift > 12) {
    // A 4 MiB page covers two regions; INVLPG may name either.
    const u64 region = e.tag.raw >> 21 & (e.page_shift == 22 ? ~u64{1} : ~u64{0});
    large[region >> 6 & 3] |= (e.page_shift == 22 ? u64{3} : u64{1}) << (region & 63);
  }
}

template <unsigned N>
void TlbArray<N>::flush() {
  if (fills != 0 || any_global)
    for (TlbEntry& e : entry) e.tag = kEmpty;
  fills = 0;
  any_global = false;
  std::memset(large, 0, sizeof large);
  huge = 0;
}

template <unsigned N>
void TlbArray<N>::flush_nonglobal() {
  if (!any_global && fills > kList) return flush();
  if (fills <= kList) {
    for (u32 i = 0; i < fills; i++)
      if (!entry[filled[i]].global) entry[filled[i]].tag = kEmpty;
  } else {
    for (TlbEntry& e : entry)
      if (!e.global) e.tag = kEmpty;
  }
  fills = 0;
}

template <unsigned N>
void TlbArray<N>::flush_page(Gva linear) {
  if (TlbEntry& e = at(linear); e.tag == linear.page()) e.tag = kEmpty;
  const u64 region = linear.raw >> 21;
  const bool maybe_large = large[region >> 6 & 3] >> (region & 63) & 1;
  if (!maybe_large && !(huge >> (linear.raw >> 30 & 63) & 1)) return;
  for (TlbEntry& e : entry)
    if (e.tag != kEmpty && (e.tag.raw ^ linear.raw) >> e.page_shift == 0) e.tag = kEmpty;
}

template <unsigned N>
void TlbArray<N>::drop_write(Gpa page) {
  for (TlbEntry& e : entry)
    if (e.gpa == page) e.perm &= ~kWriteBits;
}

// -- Life

namespace {

void point_at_slot(TlbState& t, unsigned slot) {
  t.current = slot;
  t.half[0] = t.slot[slot].data.entry;
  t.fetch[0] = t.slot[slot].fetch.entry;
}

void flush_half(TlbState::Half& half) {
  half.data.flush();
  half.fetch.flush();
}

void flush_half_nonglobal(TlbState::Half& half) {
  half.data.flush_nonglobal();
  half.fetch.flush_nonglobal();
}

// The slot of `pcid`; an empty one, or the least recently used, is cleared for it when there is none.
unsigned slot_for(TlbState& t, u16 pcid) {
  unsigned victim = 0;
  for (unsigned i = 0; i < TlbState::kSlots; i++) {
    if (t.slot_used[i] && t.pcid[i] == pcid) return i;
    if (t.slot_used[victim] && (!t.slot_used[i] || t.last_use[i] < t.last_use[victim])) victim = i;
  }
  flush_half(t.slot[victim]);
  t.slot_used[victim] = true;
  t.pcid[victim] = pcid;
  return victim;
}

}  // namespace

void TlbState::read_policy(const Cpuid* cpuid) {
  if (policy_known && policy == cpuid) [[likely]]
    return;
  policy_known = true;
  policy = cpuid;
  const unsigned bits = cpuid ? cpuid->physical_bits() : 46;
  physical_mask = (u64{1} << (bits > 52 ? 52 : bits)) - 1;
  gigabyte_pages = !cpuid || cpuid->has(Feature::pdpe1gb);
}

void mmu_create(Vcpu& cpu) {
  auto* t = new TlbState;
  t->half[1] = t->upper.data.entry;
  t->fetch[1] = t->upper.fetch.entry;
  t->slot_used[0] = true;
  point_at_slot(*t, 0);
  if (cpu.ram) {
    t->writer_bytes = cpu.ram->frames() * sizeof(u16);
    void* p =
        mmap(nullptr, t->writer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      throw HostRefused{fmt::format("no address space for {} bytes of TLB bookkeeping: raise its limit (ulimit -v)",
                                    t->writer_bytes)};
    t->writer = static_cast<u16*>(p);
    cpu.ram_base = cpu.ram->base();
  }
  cpu.tlb = t;
}

void mmu_destroy(Vcpu& cpu) {
  if (!cpu.tlb) return;
  TlbState& t = state(cpu);
  if (t.writer) munmap(t.writer, t.writer_bytes);
  delete &t;
  cpu.tlb = nullptr;
}

// -- Filling

void tlb_note_writer(Vcpu& cpu, Gva linear, u64 frame) {
  TlbState& t = state(cpu);
  const unsigned array = linear.raw >> 63 ? TlbState::kSlots : t.current;
  const u16 here = static_cast<u16>(1 + (array << 10 | (linear.raw >> 12 & (Tlb::kEntries - 1))));
  u16& known = t.writer[frame];
  if (known == here || known == TlbState::kMany) return;
  if (known != 0) {
    const unsigned other = known - 1u;
    const TlbState::Half& half = other >> 10 == TlbState::kSlots ? t.upper : t.slot[other >> 10];
    const TlbEntry& e = half.data.entry[other & 1023];
    if (e.tag != kEmpty && e.gpa.frame() == frame && (e.perm & kWriteBits)) {
      known = TlbState::kMany;
      return;
    }
  }
  known = here;
}

void tlb_fill(Vcpu& cpu, Gva linear, const TlbEntry& e, bool fetch) {
  INVARIANT(e.tag == linear.page() && e.gpa.page_offset() == 0, "a TLB entry of {} for {}", e.tag, linear);
  TlbState::Half& half = state(cpu).half_of(linear);
  if (fetch) {
    half.fetch.put(e);
    return;
  }
  half.data.put(e);
  if (e.perm & kWriteBits) tlb_note_writer(cpu, linear, e.gpa.frame());
}

// -- Flushing

void tlb_flush_all(Vcpu& cpu) {
  if (!cpu.tlb) return;
  TlbState& t = state(cpu);
  cpu.count.tlb_flushes++;
  flush_half(t.upper);
  for (unsigned i = 0; i < TlbState::kSlots; i++) {
    flush_half(t.slot[i]);
    t.slot_used[i] = false;
  }
  t.slot_used[0] = true;
  t.pcid[0] = cpu.cr4 & cr4::pcide ? cpu.cr3 & 0xfff : 0;
  point_at_slot(t, 0);
  if (cpu.tlb_mirror) cpu.tlb_mirror->flushed_all();
}

void tlb_flush_nonglobal(Vcpu& cpu) {
  TlbState& t = state(cpu);
  cpu.count.tlb_flushes++;
  flush_half_nonglobal(t.upper);
  flush_half_nonglobal(t.slot[t.current]);
  if (!cpu.tlb_mirror) return;
  cpu.tlb_mirror->flushed_nonglobal();
  cpu.tlb_mirror->flushed_context(t.pcid[t.current]);
}

void tlb_switch_pcid(Vcpu& cpu, u16 pcid, bool keep) {
  TlbState& t = state(cpu);
  const bool same = t.pcid[t.current] == pcid;
  // The upper half is shared: what is not global in it belongs to the PCID being left (or is to
  // go).
  if (!same || !keep) flush_half_nonglobal(t.upper);
  if (!same) point_at_slot(t, slot_for(t, pcid));
  t.last_use[t.current] = ++t.switches;
  if (!keep) {
    cpu.count.tlb_flushes++;
    flush_half_nonglobal(t.slot[t.current]);
  }
  if (!cpu.tlb_mirror) return;
  cpu.tlb_mirror->switched();
  if (!keep) cpu.tlb_mirror->flushed_context(pcid);
}

void tlb_flush_pcid(Vcpu& cpu, u16 pcid) {
  TlbState& t = state(cpu);
  cpu.count.tlb_flushes++;
  if (t.pcid[t.current] == pcid) flush_half_nonglobal(t.upper);
  for (unsigned i = 0; i < TlbState::kSlots; i++)
    if (t.slot_used[i] && t.pcid[i] == pcid) flush_half_nonglobal(t.slot[i]);
  if (!cpu.tlb_mirror) return;
  cpu.tlb_mirror->flushed_nonglobal();
  cpu.tlb_mirror->flushed_context(pcid);
}

void tlb_flush_all_nonglobal(Vcpu& cpu) {
  TlbState& t = state(cpu);
  cpu.count.tlb_flushes++;
  flush_half_nonglobal(t.upper);
  for (TlbState::Half& half : t.slot) flush_half_nonglobal(half);
  if (!cpu.tlb_mirror) return;
  cpu.tlb_mirror->flushed_nonglobal();
  cpu.tlb_mirror->flushed_all_contexts();
}

void tlb_flush_page(Vcpu& cpu, Gva linear) {
  if (cpu.tlb_mirror) cpu.tlb_mirror->flushed_page(linear);
  TlbState& t = state(cpu);
  if (linear.raw >> 63) {
    t.upper.data.flush_page(linear);
    t.upper.fetch.flush_page(linear);
    return;
  }
  // Global entries of the page go for every PCID; the others may.
  for (TlbState::Half& half : t.slot) {
    half.data.flush_page(linear);
    half.fetch.flush_page(linear);
  }
}

void tlb_page_fault(Vcpu& cpu, Gva linear) {
  if (cpu.tlb_mirror) cpu.tlb_mirror->faulted_page(linear);
  TlbState::Half& half = state(cpu).half_of(linear);
  half.data.flush_page(linear);
  half.fetch.flush_page(linear);
}

void tlb_drop_write(Vcpu& cpu, Gpa page) {
  if (cpu.tlb_mirror) cpu.tlb_mirror->dropped_write(page);
  TlbState& t = state(cpu);
  if (!t.writer || !cpu.ram->is_ram(page)) return;
  u16& known = t.writer[page.frame()];
  if (known == 0) return;
  if (known == TlbState::kMany) {
    t.upper.data.drop_write(page);
    for (TlbState::Half& half : t.slot) half.data.drop_write(page);
  } else {
    const unsigned at = known - 1u;
    TlbState::Half& half = at >> 10 == TlbState::kSlots ? t.upper : t.slot[at >> 10];
    TlbEntry& e = half.data.entry[at & 1023];
    if (e.gpa == page) e.perm &= ~kWriteBits;
  }
  known = 0;
}

void tlb_drop_all_write(Vcpu& cpu) {
  TlbState& t = state(cpu);
  const auto drop = [](TlbState::Half& half) {
    for (TlbEntry& e : half.data.entry) e.perm &= ~kWriteBits;
  };
  drop(t.upper);
  for (TlbState::Half& half : t.slot) drop(half);
  if (cpu.tlb_mirror) cpu.tlb_mirror->dropped_all_write();
}

}  // namespace trapline::cpu
