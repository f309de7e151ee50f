// The software TLB of translated code: sparse tables indexed by the guest page, so that a look-up needs no tag, no
// compare and no flag.
//
// A *view* is what one kind of access may see: the kernel under SMAP, the kernel with AC = 1 (or without SMAP), the
// user. GS has the base of the current view while translated code runs:
//
//   gs: - JumpCache::kBytes   the view's jump cache
//   gs: 0                     read table:  1 TiB of address space, 8-byte slots
//   gs: kWriteTable           write table: likewise
//
// The slot of an access is page(first byte) + page(last byte), in 36 bits each. An access inside page P finds slot 2P,
// which holds (host address - gva); one that crosses into the next page finds slot 2P + 1, which is always 0. 0 means:
// take the slow path. A non-canonical gva finds the entry of a canonical one, but its sum is a non-canonical host
// address, which faults.
//
// Entries are a subset of what the guest's TLB may hold: TlbMirror's calls take them away. Owned by the vCPU's thread.
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cpu/mmu.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/jump_cache.h"
#include "engine/translate/frame_writers.h"
#include "engine/translate/table_pages.h"

namespace trapline::engine::translate {

using hostcode::JumpCache;
using hostcode::kViews;
using hostcode::View;

class Views final : public cpu::TlbMirror {
 public:
  static constexpr u64 kTableBytes = u64{1} << 40;
  static constexpr u64 kWriteTable = kTableBytes;
  // What translated code adds to GS for an access: see above.
  static constexpr u64 slot_offset(Gva linear, unsigned size, bool write) {
    const u64 pages = ((linear.raw & kPageBits) >> 12) + (((linear.raw + size - 1) & kPageBits) >> 12);
    return pages * 8 + (write ? kWriteTable : 0);
  }
  static constexpr u64 kPageBits = 0xfffffffff000;  // of a gva: the 36 bits of its page number

  // Address space of the three views.
  static constexpr u64 kViewBytes = JumpCache::kBytes + 2 * kTableBytes + 2 * MiB;
  static constexpr u64 kBytes = kViews * kViewBytes;
  // `space`: kBytes of it, which begin with a huge page and stay the caller's; null: finds them itself. Null: there are
  // none.
  static std::unique_ptr<Views> make(const cpu::Vcpu& cpu, void* space);
  ~Views() override;

  u64 base(View v) const { return base_[static_cast<u8>(v)]; }  // what GS holds
  JumpCache& jumps() { return *jumps_; }
  const JumpCache& jumps() const { return *jumps_; }

  // Before a look-up at `linear` is repeated, or given up: counts what it has made the tables grow by, and gives all
  // back (every entry is lost) when that is too much.
  void touch(View v, Gva linear);
  // `addend` for accesses to the page of `linear`, which touch() knows; what for: `write` also fills the read slot when
  // `read` says so. `page_shift`: the guest's page.
  void fill(View v, Gva linear, Gpa page, u64 addend, bool global, u8 page_shift, bool read, bool write);
  // Is there an entry? touch() knows the place.
  bool has(View v, Gva linear, bool write) const { return *slot(static_cast<u8>(v), linear, write) != 0; }
  // For --verify: what is in the tables, whatever the lists say. `see` is given view, page, kind and slot.
  struct Entry {
    View view;
    Gva linear;
    bool write, over_end;
    u64 addend;
  };
  template <class See>
  void each(See see) const;
  template <class See>
  void each_of_page(View v, Gva linear, See see) const;
  // A wrong one for tests: no list has it.
  void plant(View v, Gva linear, u64 addend, bool write) {
    for (u8 kind = 0; kind <= write; kind++) *slot(static_cast<u8>(v), linear, kind) = addend;
  }
  void forget_write(View v, Gva linear) { *slot(static_cast<u8>(v), linear, true) = 0; }

  hostcode::Remapped remapped;
  u64 fills = 0, flushes = 0, purges = 0;
  u32 pages_touched() const { return touched_.count(); }  // pairs of pages: TablePages

  void flushed_all() override;
  void flushed_nonglobal() override;
  void flushed_page(Gva linear) override;
  void switched() override;
  void dropped_write(Gpa page) override;
  void dropped_all_write() override;

 private:
  explicit Views(u64 frames) : writers_{frames} {}
  struct Filled {
    Gva linear;  // the page
    Gpa gpa;
    u8 view;
    bool write;
  };
  // The lists' bound; beyond it all entries are dropped.
  static constexpr u64 kMostFilled = 1 << 16;
  void purge();
  void populate(u8 view, Gva block);
  void note_writer(u8 view, Gva linear, Gpa page, u64 addend);
  void note_large(Gva linear, u8 page_shift);
  void clear_mib(Gva linear);
  void clear_large(Gva linear);
  u64* slot(u8 view, Gva linear, bool write) const {
    return reinterpret_cast<u64*>(base_[view] + (write ? kWriteTable : 0)) + ((linear.raw & kPageBits) >> 12) * 2;
  }
  void clear(const Filled& f) const {
    *slot(f.view, f.linear, false) = 0;
    if (f.write) *slot(f.view, f.linear, true) = 0;
  }
  void drop_all(std::vector<Filled>& list);
  void drop_everything();

  u64 base_[kViews] = {};
  void* map_[kViews] = {};
  bool own_ = false;  // the maps
  // Global pages of the upper half stay for long: apart, so that a flush need not look at them.
  std::vector<Filled> global_, upper_, lower_;
  TablePages touched_;
  FrameWriters writers_;
  // Pages of large mappings have entries: by region of 2 MiB, or the MiBs of a 1 GiB region. INVLPG ends them all.
  std::unordered_set<u64> large_;
  bool four_mib_pages_ = false;
  std::unordered_map<u64, std::vector<u64>> huge_;
  std::optional<JumpCache> jumps_;
};

template <class See>
void Views::each_of_page(View v, Gva linear, See see) const {
  for (const bool write : {false, true}) {
    const u64* const at = slot(static_cast<u8>(v), linear, write);
    for (const bool over_end : {false, true})
      if (at[over_end] != 0) see(Entry{v, linear.page(), write, over_end, at[over_end]});
  }
}

template <class See>
void Views::each(See see) const {
  touched_.each([&](Gva mib, u8 views) {
    for (u8 v = 0; v < kViews; v++)
      for (u64 at = 0; views >> v & 1 && at < MiB; at += kPageSize)
        each_of_page(static_cast<View>(v), mib.wrapping_add(at), see);
  });
}

}  // namespace trapline::engine::translate
