#include "engine/translate/views.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/invariant.h"

namespace trapline::engine::translate {

namespace {

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

std::unique_ptr<Views> Views::make(const cpu::Vcpu& cpu, void* space) {
  std::unique_ptr<Views> views{new Views{cpu.ram ? cpu.ram->frames() : 0}};
  views->own_ = !space;
  for (unsigned v = 0; v < kViews; v++) {
    constexpr u64 bytes = kViewBytes;
    void* p = space ? static_cast<u8*>(space) + v * kViewBytes : reserve(bytes);
    if (!p) return nullptr;
    // The tables' slots are touched far apart: huge pages would cost 2 MiB each. The jump cache is one itself.
    static_assert(JumpCache::kBytes == kHuge);
    madvise(p, JumpCache::kBytes, MADV_HUGEPAGE);
    madvise(static_cast<u8*>(p) + JumpCache::kBytes, bytes - JumpCache::kBytes, MADV_NOHUGEPAGE);
    madvise(p, bytes, MADV_DONTDUMP);
    views->map_[v] = p;
    views->base_[v] = reinterpret_cast<u64>(p) + JumpCache::kBytes;
  }
  views->jumps_.emplace(std::to_array(views->base_));
  return views;
}

Views::~Views() {
  for (void* p : map_)
    if (p && own_) munmap(p, kViewBytes);
}

void Views::touch(View v, Gva linear) {
  const u8 view = static_cast<u8>(v);
  if (touched_.touched(linear) >> view & 1) return;
  if (!touched_.touch(linear, view)) {
    purge();
    touched_.touch(linear, view);
  }
  if (touched_.widens(linear, view)) populate(view, Gva{linear.raw & ~(TablePages::kBlock - 1)});
}

// A page of tables costs the host a fault when its first slot is looked at, some 13 us; a block of them at once a tenth
// of that each.
void Views::populate(u8 view, Gva block) {
  constexpr u64 kSlots = TablePages::kBlock / kPageSize * 2 * sizeof(u64);
  for (const bool write : {false, true})
    if (madvise(slot(view, block, write), kSlots, MADV_POPULATE_WRITE) != 0) return;  // before Linux 5.14
}

void Views::fill(View v, Gva linear, Gpa frame, u64 addend, bool global, u8 page_shift, bool read, bool write) {
  INVARIANT(addend != 0, "a slot for {} that would say that there is none", linear);
  INVARIANT(touched_.touched(linear) >> static_cast<u8>(v) & 1, "a slot for {} where no flush would look", linear);
  if (global_.size() + upper_.size() + lower_.size() >= kMostFilled) drop_everything();
  std::vector<Filled>& list = !(linear.raw >> 63) ? lower_ : global ? global_ : upper_;
  const u8 view = static_cast<u8>(v);
  if (read) *slot(view, linear, false) = addend;
  if (write) {
    *slot(view, linear, true) = addend;
    note_writer(view, linear, frame, addend);
  }
  list.push_back({linear.page(), frame, view, write});
  if (page_shift > 12) note_large(linear, page_shift);
  fills++;
}

// A place whose entry is gone, or another frame's now, is free.
void Views::note_writer(u8 view, Gva linear, Gpa frame, u64 addend) {
  FrameWriters::Frame* f = writers_.at(frame.frame());
  const WriterPlace place = WriterPlace::of(view, linear);
  if (!f || f->many() || f->place[0] == place || f->place[1] == place) return;
  const u64 host = linear.page().raw + addend;
  for (WriterPlace& p : f->place) {
    const bool alive = p.raw != 0 && touched_.touched(p.linear()) >> p.view() & 1 &&
                       *slot(p.view(), p.linear(), true) == host - p.linear().raw;
    if (alive) continue;
    p = place;
    return;
  }
  f->place[1].raw = FrameWriters::Frame::kMany;
}

void Views::note_large(Gva linear, u8 page_shift) {
  four_mib_pages_ |= page_shift == 22;
  if (page_shift < 30) {
    for (u64 part = 0; part < u64{1} << page_shift; part += 2 * MiB)
      large_.insert(((linear.raw & ~((u64{1} << page_shift) - 1)) + part) >> 21);
    return;
  }
  std::vector<u64>& mibs = huge_[linear.raw >> 30];
  if (std::find(mibs.begin(), mibs.end(), linear.raw >> 20) == mibs.end()) mibs.push_back(linear.raw >> 20);
}

// All entries of a MiB.
void Views::clear_mib(Gva linear) {
  const Gva first{linear.raw & ~(MiB - 1)};
  const u8 views = touched_.touched(first);
  for (u8 v = 0; v < kViews; v++)
    if (views >> v & 1)
      for (const bool write : {false, true}) std::memset(slot(v, first, write), 0, kPageSize);
}

// The entries of large mappings that hold it.
void Views::clear_large(Gva linear) {
  // A 4 MiB page (32-bit paging) is two regions.
  for (const u64 region : {linear.raw >> 21, linear.raw >> 21 ^ 1}) {
    if (region != linear.raw >> 21 && !four_mib_pages_) continue;
    if (large_.erase(region) == 0) continue;
    clear_mib(Gva{region << 21});
    clear_mib(Gva{(region << 21) + MiB});
  }
  const auto huge = huge_.find(linear.raw >> 30);
  if (huge == huge_.end()) return;
  for (const u64 mib : huge->second) clear_mib(Gva{mib << 20});
  huge_.erase(huge);
}

// The tables' memory too: mapping them anew frees the host's page tables as well.
void Views::purge() {
  for (void* p : map_) {
    void* tables = static_cast<u8*>(p) + JumpCache::kBytes;
    constexpr u64 bytes = kViewBytes - JumpCache::kBytes;
    const void* again =
        mmap(tables, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    INVARIANT(again == tables, "the tables' memory cannot be mapped anew");
    madvise(tables, bytes, MADV_NOHUGEPAGE);
    madvise(tables, bytes, MADV_DONTDUMP);
  }
  global_.clear(), upper_.clear(), lower_.clear();
  large_.clear(), huge_.clear();
  touched_.clear();
  purges++;
}

void Views::drop_all(std::vector<Filled>& list) {
  for (const Filled& f : list) clear(f);
  list.clear();
}

void Views::drop_everything() {
  drop_all(global_);
  drop_all(upper_);
  drop_all(lower_);
  large_.clear(), huge_.clear();
}

// -- What the TLB says
void Views::flushed_all() {
  flushes++;
  drop_everything();
  remapped.all = true;
  jumps_->forget_unstable();
}

void Views::flushed_nonglobal() {
  flushes++;
  switched();
}

void Views::switched() {
  drop_all(upper_);
  drop_all(lower_);
  jumps_->forget_unstable();
}

// Costs what the address has, not what has been touched elsewhere.
void Views::flushed_page(Gva linear) {
  const Gva page = linear.page();
  const u8 views = touched_.touched(page);
  for (u8 v = 0; v < kViews; v++)
    if (views >> v & 1) *slot(v, page, false) = *slot(v, page, true) = 0;
  if (!large_.empty() || !huge_.empty()) clear_large(linear);
  if (linear.raw >> 63) remapped.pages.push_back(page);
  jumps_->forget_unstable_to(page);
}

// The lists keep what is cleared here: to clear it again costs nothing.
void Views::dropped_write(Gpa frame) {
  FrameWriters::Frame* f = writers_.at(frame.frame());
  if (f && !f->many()) {
    for (const WriterPlace& p : f->place)
      if (p.raw != 0 && touched_.touched(p.linear()) >> p.view() & 1) *slot(p.view(), p.linear(), true) = 0;
  } else {
    for (const std::vector<Filled>* list : {&global_, &upper_, &lower_})
      for (const Filled& e : *list)
        if (e.gpa == frame && e.write) *slot(e.view, e.linear, true) = 0;
  }
  if (f) *f = {};
}

void Views::dropped_all_write() {
  for (const std::vector<Filled>* list : {&global_, &upper_, &lower_})
    for (const Filled& f : *list)
      if (f.write) *slot(f.view, f.linear, true) = 0;
}

}  // namespace trapline::engine::translate
