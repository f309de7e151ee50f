#include "engine/patch/address_space.h"

#include <sys/mman.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <bitset>
#include <vector>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/mmu_internal.h"
#include "cpu/write_watch.h"

namespace trapline::engine::patch {

namespace {

constexpr u64 kRegion = 2 * MiB;
constexpr u64 kDearestOrder = 200'000;  // ticks that are not for a neighbour's sake
constexpr unsigned kLongRun = 8;        // of them, side by side in RAM too: one order, cheaper than the fault to come

// Where RAM lies in its file (base/guest_memory.h).
u64 file_offset(Gpa gpa) { return gpa.raw < kPciHoleEnd ? gpa.raw : gpa.raw - (kPciHoleEnd - kPciHoleStart); }

}  // namespace

u64 AddressSpace::entry_of(Gva linear) const {
  const auto region = regions_.find(linear.raw / kRegion);
  return region == regions_.end() ? 0 : region->second->page[linear.frame() % kPages];
}

// Instructions may lie across the border to pages that are executed already.
bool AddressSpace::border_ok(Gva linear, Gpa gpa) const {
  const u64 before = entry_of(linear.wrapping_add(0 - kPageSize)), behind = entry_of(linear.wrapping_add(kPageSize));
  return (!(before & execute) || frames_.admits_border(page_of(before), gpa)) &&
         (!(behind & execute) || frames_.admits_border(gpa, page_of(behind)));
}

void AddressSpace::order(Gva address, u64 length, u64 entry, bool lower) {
  if (!(entry & mapped)) return cage_->unmap(address, length);
  const int prot = PROT_READ | (entry & write ? PROT_WRITE : 0) | (entry & execute ? PROT_EXEC : 0);
  if (lower) return cage_->protect(address, length, prot);
  if (entry & copy)
    cage_->map(address, length, prot, CAGE_COPIES_FD, frames_.copy_of(page_of(entry)), true);
  else
    cage_->map(address, length, prot, CAGE_RAM_FD, file_offset(page_of(entry)), true);
  mappings_++;
}

void AddressSpace::finish() {
  if (run_.length != 0) order(run_.address, run_.length, run_.entry, run_.lower);
  run_.length = 0;
}

// Whoever calls it calls `finish` behind the last region. Pages that go are one order with those that have never been
// there; so the pages of a program that ends are few.
void AddressSpace::become(Gva base, Region& region, unsigned index, u64 then) {
  INVARIANT((then & (write | execute)) != (write | execute), "{} writable and executable", page_of(then));
  INVARIANT(!(then & copy) || (then & execute), "a patched copy of {} that is not executed", page_of(then));
  u64& now = region.page[index];
  if (then == now) {
    if (now != 0 && run_.entry == 0) finish();
    return;
  }
  const bool lower = (then & mapped) && (now & mapped) && page_of(then) == page_of(now) && (then & ~now) == 0;
  const Gva address = base.wrapping_add(index * kPageSize);
  const u64 expected = run_.entry & copy ? ~u64{0} : run_.entry & mapped ? run_.entry + run_.length : 0;
  const bool follows = then == 0 ? !(run_.address.raw < cage_->stub() && address.raw >= cage_->stub())
                                 : address == run_.address.wrapping_add(run_.length);
  if (run_.length == 0 || !follows || then != expected || lower != run_.lower) {
    finish();
    run_ = {address, 0, then, lower};
  }
  run_.length = address - run_.address + kPageSize;
  static_assert(mapped == 1);  // so that the bit counts
  pages_ += (then & mapped) - (now & mapped);
  if ((then & ~now) & write) frames_.note_write(page_of(then));
  if ((then & ~now) & execute) frames_.note_execute(page_of(then));
  region.in_use[index] = then != 0;
  now = then;
}

template <class Wanted>
void AddressSpace::reconcile(Gva base, Region& region, unsigned first, unsigned last, Wanted wanted) {
  for (unsigned i = first; i < last; i++) become(base, region, i, wanted(i, region.page[i]));
}

template <class Wanted>
void AddressSpace::review(Gva base, Region& region, Wanted wanted) {
  for (std::size_t i = region.in_use._Find_first(); i < kPages; i = region.in_use._Find_next(i))
    become(base, region, static_cast<unsigned>(i), wanted(static_cast<unsigned>(i), region.page[i]));
}

// Marking code takes write permission away, perhaps here: to be asked before anything is planned.
bool AddressSpace::runs(Gva linear, const UserPage& page) {
  return page.executable && frames_.admits(page.gpa) && border_ok(linear, page.gpa);
}

// Such a page is mapped executable when code in it runs, no sooner: until then it may be data, which linkers put between
// code unless they are told otherwise, and reading it must show what is there.
bool AddressSpace::patched(Gpa page) const { return frames_.copy_of(page) != ~u64{0}; }

// Whoever watches writes (--verify) is told of each page's first one by a fault, which maps it.
bool AddressSpace::may_write(const UserPage& page) const {
  return page.writable && !frames_.holds_code(page.gpa) && cpu::write_watch == nullptr;
}

// An access to where the stub is would be no fault: whoever uses what is near by might come there.
void AddressSpace::note_use(Gva linear) {
  constexpr u64 kNear = 1 * GiB;
  if (linear.raw - (cage_->stub() - kNear) < 2 * kNear) stub_in_the_way_ = true;
}

void AddressSpace::map_present(const cpu::Vcpu& cpu) {
  constexpr std::size_t kMostPages = 4096;
  constexpr u64 kMostOrders = 512;
  const u64 before = mappings_;
  std::vector<u64> numbers;
  each_region(cpu, root_, [&](u64 number) {
    numbers.push_back(number);
    return numbers.size() < 256;
  });
  for (const u64 number : numbers) {
    const Gva base{number * kRegion};
    note_use(base);
    if (pages_ >= kMostPages || mappings_ - before >= kMostOrders) break;
    if (base.raw + kRegion > cage_->stub() && base.raw < cage_->stub_end()) continue;
    const UserRegion tables{cpu, root_, base};
    if (!tables.any() || tables.large()) continue;  // large pages are mapped as they are touched
    std::bitset<kPages> code;
    for (unsigned i = 0; i < kPages; i++) {
      const UserPage p = tables.page(i);
      code[i] = p.executable && !p.writable && cpu::is_plain_ram(cpu, p.gpa) &&
                runs(base.wrapping_add(i * kPageSize), p) && !patched(p.gpa);
    }
    auto& region = regions_[number];
    if (!region) region = std::make_unique<Region>();
    reconcile(base, *region, 0, kPages, [&](unsigned i, u64 now) -> u64 {
      const UserPage p = tables.page(i);
      if ((now & mapped) || !p.present || !cpu::is_plain_ram(cpu, p.gpa)) return now;
      if (code[i]) return p.gpa.raw | mapped | execute;
      return p.gpa.raw | mapped | (may_write(p) ? u64{write} : u64{0});
    });
  }
  finish();
}

bool AddressSpace::put_off(const cpu::Vcpu& cpu, Gva linear) {
  constexpr std::size_t kMost = 4096;
  constexpr u32 kMany = 8;
  const UserPage p = UserRegion{cpu, root_, linear}.page(linear.frame() % kPages);
  if (!p.present || p.writable || p.executable) return false;
  if (read_.size() > kMost) read_.clear();
  if (put_off_.size() > kMost) put_off_.clear();
  return ++read_[p.gpa.frame()] > kMany && put_off_.insert(linear.frame()).second;
}

// What goes along with the page that is asked for: pages that one order maps with it, and long runs. Bits by page.
u64 AddressSpace::along(std::span<const UserPage, kAround> pages, unsigned asked, bool fetch) {
  u64 along = 0;
  for (unsigned i = 0, begin = 0; i < kAround; i++) {
    const bool goes_on =
        i + 1 < kAround && pages[i].present && pages[i + 1].present &&
        pages[i + 1].gpa == pages[i].gpa.wrapping_add(kPageSize) &&
        (fetch ? pages[i].executable == pages[i + 1].executable : pages[i].writable == pages[i + 1].writable);
    if (goes_on) continue;
    const unsigned length = i + 1 - begin;
    if ((begin <= asked && asked <= i) || length >= kLongRun) along |= ~u64{0} >> (kAround - length) << begin;
    begin = i + 1;
  }
  return along;
}

bool AddressSpace::map_around(const cpu::Vcpu& cpu, Gva linear, Want want) {
  note_use(linear);
  if (linear.raw >= cage_->stub() - kPageSize && linear.raw < cage_->stub_end()) return false;
  if (mappings_ >= most_mappings_) clear();
  const bool fetch = want == Want::fetch;
  const unsigned first = linear.frame() % kPages & ~(kAround - 1), asked = linear.frame() % kAround;
  const Gva base{linear.raw & ~(kRegion - 1)}, from = base.wrapping_add(first * kPageSize);
  const UserRegion tables{cpu, root_, linear};
  std::array<UserPage, kAround> pages;
  for (unsigned i = 0; i < kAround; i++) pages[i] = tables.page(first + i);
  u64 code = 0;
  for (unsigned i = 0; fetch && i < kAround; i++) {
    const UserPage& p = pages[i];
    const Gva at = from.wrapping_add(i * kPageSize);
    if (!p.executable || !cpu::is_plain_ram(cpu, p.gpa)) continue;
    if (i != asked && entry_of(at) != 0) continue;
    if (runs(at, p) && (i == asked || !patched(p.gpa))) code |= u64{1} << i;
  }
  bool done = false;
  auto& region = regions_[linear.raw / kRegion];
  if (!region) region = std::make_unique<Region>();
  for (u64 left = along(pages, asked, fetch); left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    const UserPage& p = pages[i];
    const Gva at = from.wrapping_add(i * kPageSize);
    const u64 now = region->page[first + i];
    if (i != asked && (now & mapped)) continue;  // what it has become is told by a flush, not by a neighbour
    if (at.raw >= cage_->stub() && at.raw < cage_->stub_end()) continue;
    if (!p.present || !cpu::is_plain_ram(cpu, p.gpa)) continue;
    u64 entry = p.gpa.raw | mapped;
    if (fetch) {
      if (!(code >> i & 1)) continue;
      entry |= execute | (patched(p.gpa) ? u64{copy} : u64{0});
    } else if (may_write(p) || (i == asked && want == Want::write && p.writable && !frames_.holds_code(p.gpa))) {
      entry |= write;
    } else if ((now & execute) && page_of(now) == p.gpa) {
      entry = now;
    }
    if (i == asked) done = want != Want::write || (entry & write);
    if (i == asked && !done) continue;
    become(base, *region, first + i, entry);
  }
  finish();
  if (!done && fetch) refused_.insert(linear.frame());
  return done;
}

void AddressSpace::prove() {
  finish();
  if (!cage_->idle()) {
    const u64 orders = cage_->orders(), before = __rdtsc();
    cage_->carry_out();
    const u64 ticks = std::min<u64>(__rdtsc() - before, orders * kDearestOrder);
    flush_ticks_ += ticks;
    order_ticks_ = order_ticks_ - order_ticks_ / 8 + ticks / orders / 8;
  }
  if (cage_->dead()) regions_.clear(), pages_ = 0;
}

// A program that forks loses write permission everywhere. Where each order costs the host a flush of its own, to take all
// away and to begin again with what is touched is cheaper.
void AddressSpace::prove_cheaply() {
  constexpr u64 kMostTicks = 2'000'000;  // what some thirty faults cost
  finish();
  if (cage_->orders() * order_ticks_ < kMostTicks) return prove();
  TRACE(cages, "{} orders of some {} ticks each are too many: empties the cage of {} pages", cage_->orders(),
        order_ticks_, pages_);
  cage_->take_back_mappings();
  clear();
}

void AddressSpace::revalidate(const cpu::Vcpu& cpu) {
  refused_.clear();
  if (pages_ == 0) return;
  for (auto at = regions_.begin(); at != regions_.end();) {
    Region& region = *at->second;
    const Gva base{at->first * kRegion};
    const UserRegion tables{cpu, root_, base};
    bool any = false;
    if (!tables.any()) {
      review(base, region, [](unsigned, u64) { return u64{0}; });
    } else {
      review(base, region, [&](unsigned i, u64 now) -> u64 {
        const UserPage p = tables.page(i);
        if (!p.present || p.gpa != page_of(now) || ((now & execute) && !p.executable)) return 0;
        any = true;
        return p.writable ? now : now & ~u64{write};
      });
    }
    at = any ? std::next(at) : regions_.erase(at);
  }
  ended_ = ended_ || pages_ == 0;
  prove_cheaply();
}

void AddressSpace::revalidate_around(const cpu::Vcpu& cpu, Gva linear) {
  refused_.erase(linear.frame());
  const auto found = regions_.find(linear.raw / kRegion);
  if (found == regions_.end()) return;
  const Gva base{linear.raw & ~(kRegion - 1)};
  const unsigned here = linear.frame() % kPages;
  if (found->second->page[here] == 0) return;
  // A range is flushed page by page: the first one does it for all.
  const UserRegion tables{cpu, root_, base};
  review(base, *found->second, [&](unsigned i, u64 now) -> u64 {
    const UserPage p = tables.page(i);
    // A page that was copied on a write is about to be written to.
    if (i == here && may_write(p) && !(now & execute) && cpu::is_plain_ram(cpu, p.gpa))
      return p.gpa.raw | mapped | write;
    if (!p.present || p.gpa != page_of(now) || ((now & execute) && !p.executable)) return 0;
    return p.writable ? now : now & ~u64{write};
  });
  prove();
}

void AddressSpace::drop_write(Gpa page) {
  for (auto& [number, region] : regions_)
    review(Gva{number * kRegion}, *region,
           [&](unsigned, u64 now) -> u64 { return page_of(now) == page ? now & ~u64{write} : now; });
  prove();
}

void AddressSpace::drop_execute(Gpa page) {
  for (auto& [number, region] : regions_)
    review(Gva{number * kRegion}, *region,
           [&](unsigned, u64 now) -> u64 { return page_of(now) == page && (now & execute) ? 0 : now; });
  prove();
}

void AddressSpace::drop_all_write() {
  for (auto& [number, region] : regions_)
    review(Gva{number * kRegion}, *region, [](unsigned, u64 now) -> u64 { return now & ~u64{write}; });
  prove();
}

void AddressSpace::clear() {
  if (pages_ != 0 || mappings_ != 0) {
    cage_->unmap(Gva{}, cage_->stub());
    cage_->unmap(Gva{cage_->stub_end()}, cage::kTop - cage_->stub_end());
  }
  regions_.clear();
  refused_.clear();
  read_.clear();
  put_off_.clear();
  pages_ = 0;
  mappings_ = 0;
  prove();
}

}  // namespace trapline::engine::patch
