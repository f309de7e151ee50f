#include "engine/translate/views.h"

#include <sys/mman.h>

namespace trapline::engine::translate {

namespace {

// No address finds an empty slot: 0 - 1 belongs elsewhere than into slot 0, and a 0 elsewhere means gva 0, whose slot
// is 0.
JumpSlot empty(u64 index) { return {index == 0 ? u64{1} : 0, 0}; }

constexpr u64 kHuge = 2 * MiB;

// Address space that begins with a huge page. Null: none left.
void* reserve(u64 bytes) {
  void* all = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  const u64 from = reinterpret_cast<u64>(all), start = (from + kHuge - 1) & ~(kHuge - 1);
  if (start != from) munmap(all, start - from);
  const u64 rest = from + kHuge - start;
  if (rest) munmap(reinterpret_cast<void*>(start + bytes), rest);
  return reinterpret_cast<void*>(start);
}

}  // namespace

std::unique_ptr<Views> Views::make(const cpu::Vcpu& cpu) {
  std::unique_ptr<Views> views{new Views};
  for (unsigned v = 0; v < kViews; v++) {
    const u64 bytes = kJumpBytes + 2 * kTableBytes + kPageSize;
    void* p = reserve(bytes);
    if (!p) return nullptr;
    // The tables' slots are touched far apart: huge pages would cost 2 MiB each. The jump cache is one itself.
    static_assert(kJumpBytes == kHuge);
    madvise(p, kJumpBytes, MADV_HUGEPAGE);
    madvise(static_cast<u8*>(p) + kJumpBytes, bytes - kJumpBytes, MADV_NOHUGEPAGE);
    madvise(p, bytes, MADV_DONTDUMP);
    views->map_[v] = p;
    views->base_[v] = reinterpret_cast<u64>(p) + kJumpBytes;
    *static_cast<JumpSlot*>(p) = empty(0);
  }
  views->writer_.resize(cpu.ram ? cpu.ram->frames() : 0);
  return views;
}

Views::~Views() {
  for (void* p : map_)
    if (p) munmap(p, kJumpBytes + 2 * kTableBytes + kPageSize);
}

void Views::fill(View v, u64 linear, u64 gpa_page, u64 addend, bool global, u8 page_shift, bool read, bool write) {
  std::vector<Filled>& list = !(linear >> 63) ? lower_ : global ? global_ : upper_;
  if (++since_purge_ > kMost) purge();
  const u8 view = static_cast<u8>(v);
  if (read) *slot(view, linear, false) = addend;
  if (write) {
    *slot(view, linear, true) = addend;
    if (gpa_page / kPageSize < writer_.size()) writer_[gpa_page / kPageSize] = 1;
  }
  list.push_back({linear & kPageMask, gpa_page, view, page_shift, global, write});
  if (page_shift > 12) large_filled_ = true;
  fills++;
}

void Views::purge() {
  for (void* p : map_) {
    madvise(static_cast<u8*>(p) + kJumpBytes, 2 * kTableBytes, MADV_DONTNEED);
  }
  global_.clear();
  upper_.clear();
  lower_.clear();
  large_filled_ = false;
  since_purge_ = 0;
}

void Views::drop_all(std::vector<Filled>& list) {
  for (const Filled& f : list) clear(f);
  list.clear();
}

// -- Jump cache
// A slot overwritten by the other kind is in both lists: clearing it too early costs a look-up.
void Views::put_jump(View v, u64 linear, u64 entry, bool stable) {
  const u64 i = linear & kJumpMask;
  auto* cache = reinterpret_cast<JumpSlot*>(base(v) - kJumpBytes);
  std::vector<u32>& list = (stable ? stable_ : unstable_)[static_cast<u8>(v)];
  list.push_back(static_cast<u32>(i));
  cache[i] = {0 - linear, entry};
  if (list.size() > 4 * kJumps) forget_jumps();
}

u64 Views::find_jump(View v, u64 linear) const {
  const JumpSlot& s = reinterpret_cast<const JumpSlot*>(base(v) - kJumpBytes)[linear & kJumpMask];
  return s.negated == 0 - linear ? s.entry : 0;
}

void Views::forget_jumps() {
  for (unsigned v = 0; v < kViews; v++) {
    auto* cache = reinterpret_cast<JumpSlot*>(base_[v] - kJumpBytes);
    for (u32 i : stable_[v]) cache[i] = empty(i);
    stable_[v].clear();
  }
  forget_unstable_jumps();
}

void Views::forget_unstable_jumps() {
  for (unsigned v = 0; v < kViews; v++) {
    auto* cache = reinterpret_cast<JumpSlot*>(base_[v] - kJumpBytes);
    for (u32 i : unstable_[v]) cache[i] = empty(i);
    unstable_[v].clear();
  }
}

// -- What the TLB says
void Views::flushed_all() {
  flushes++;
  drop_all(global_);
  drop_all(upper_);
  drop_all(lower_);
  large_filled_ = false;
  upper_code_remapped = true;
  forget_unstable_jumps();
}

void Views::flushed_nonglobal() {
  flushes++;
  switched();
}

void Views::switched() {
  drop_all(upper_);
  drop_all(lower_);
  forget_unstable_jumps();
}

void Views::flushed_page(u64 linear) {
  const u64 page = linear & kPageMask;
  for (u8 v = 0; v < kViews; v++) *slot(v, page, false) = *slot(v, page, true) = 0;
  if (large_filled_)
    for (std::vector<Filled>* list : {&global_, &upper_, &lower_})
      for (const Filled& f : *list)
        if (f.page_shift > 12 && (f.linear ^ linear) >> f.page_shift == 0) clear(f);
  if (linear >> 63) upper_code_remapped = true;
  forget_unstable_jumps();
}

// The lists keep what is cleared here: to clear it again costs nothing.
void Views::dropped_write(u64 gpa_page) {
  if (gpa_page / kPageSize >= writer_.size() || !writer_[gpa_page / kPageSize]) return;
  for (const std::vector<Filled>* list : {&global_, &upper_, &lower_})
    for (const Filled& f : *list)
      if (f.gpa == gpa_page && f.write) *slot(f.view, f.linear, true) = 0;
  writer_[gpa_page / kPageSize] = 0;
}

void Views::dropped_all_write() {
  for (const std::vector<Filled>* list : {&global_, &upper_, &lower_})
    for (const Filled& f : *list)
      if (f.write) *slot(f.view, f.linear, true) = 0;
}

}  // namespace trapline::engine::translate
