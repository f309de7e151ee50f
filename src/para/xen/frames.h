// What each machine frame is used as, and how often: the guarantee that a guest never writes to a page table, a
// descriptor table or a frame that is not its own other than through a hypercall.
//
// Invariants, with the domain's lock held:
//   1. A frame has one type while its type count is not 0. Writable mappings, page tables of one level and descriptor
//      pages exclude each other.
//   2. A page table's type count counts: entries of the level above that name it, vCPUs whose root it is, and one if it
//      is pinned. While it is not 0, each of its present entries holds a reference: of the level below on a table, of
//      `writable` on what a level-1 entry maps writable, and a plain one on what it maps otherwise.
//   3. A plain reference count of 0 and no type count means: nothing maps the frame, it may be given back.
//   4. When a frame stops being writable to become something else, no vCPU's TLB, and nothing derived from one, has a
//      write entry for it (CodeMap::drop_writers).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>

#include "base/types.h"
#include "cpu/vcpu.h"
#include "para/xen/layout.h"

namespace trapline::para::xen {

enum class Type : u8 { none, l1, l2, l3, l4, descriptors, writable };
constexpr Type table_type(unsigned level) { return static_cast<Type>(level); }  // 1..4

struct Frame {
  u32 refs = 0;   // everything that names it, types included
  u32 types = 0;  // of those, the ones by its type
  Type type = Type::none;
  bool owned = false;   // the guest's
  bool pinned = false;  // as a page table
  bool upper = false;   // a page table of the upper half of some address space
  bool shared = false;  // a page table that more than one entry has named
  u16 slot = 0;         // of a page table: 1 + which entry of the table above names it
  u32 parent = 0;       // that table; any of several where `shared`
};

class Frames {
 public:
  Frames(const Layout& layout, GuestMemory& ram);

  Frame& operator[](Mfn mfn) { return frame_[mfn.raw]; }
  bool valid(Mfn mfn) const { return mfn.raw < count_; }
  bool owned(Mfn mfn) const { return mfn.raw < count_ && frame_[mfn.raw].owned; }
  bool is(Mfn mfn, Type type) const {
    return mfn.raw < count_ && frame_[mfn.raw].types != 0 && frame_[mfn.raw].type == type;
  }

  // One more reference by this type. False: the frame is not the guest's, is in use as something else, or is no valid
  // table of that kind; nothing has changed.
  bool get(cpu::Vcpu& cpu, Mfn mfn, Type type);
  void put(cpu::Vcpu& cpu, Mfn mfn, Type type);

  // How often an entry of the upper half has changed so that a translation kept from before would be wrong. Who has
  // seen no change since it flushed last need not flush that half again. Changes under the domain's lock, read by all.
  u64 upper_changes() const { return upper_changes_.load(std::memory_order_acquire); }
  // The linear addresses of the pages that have changed from then to then; no more than this many, each mapped in one
  // place. Nothing: they are more, or all may have changed.
  static constexpr unsigned kMostPages = 128;
  std::optional<std::array<Gva, kMostPages>> changed_pages(u64 from, u64 to) const;

  // -- Page-table entries (tables.cpp). References of a present entry of a table of `level`, as it stands in memory;
  // `index` where it stands in it.
  bool get_entry(cpu::Vcpu& cpu, u64 entry, unsigned level, Mfn table, unsigned index);
  void put_entry(cpu::Vcpu& cpu, u64 entry, unsigned level);
  // As Xen adds to a guest's entry what its kernel needs at CPL 3.
  static u64 adjusted(u64 entry);
  // Writes one entry of a table in use, checked, with its references. `keep`: accessed and dirty bits stay.
  bool write_entry(cpu::Vcpu& cpu, Mfn table, unsigned index, u64 value, bool keep);
  // The same if it still is `expected`; *stored tells.
  bool replace_entry(cpu::Vcpu& cpu, Mfn table, unsigned index, u64 expected, u64 value, bool* stored);

  u64* table(Mfn mfn) const { return reinterpret_cast<u64*>(ram_.host(gpa(mfn))); }
  const Layout& layout() const { return layout_; }

 private:
  bool validate(cpu::Vcpu& cpu, Mfn mfn, Type type);
  void invalidate(cpu::Vcpu& cpu, Mfn mfn, Type type);
  bool validate_table(cpu::Vcpu& cpu, Mfn mfn, unsigned level);
  void release_entries(cpu::Vcpu& cpu, Mfn mfn, unsigned level, unsigned from, unsigned end);
  void put_hypervisor_slots(u64* l4);
  bool upper(unsigned level, Mfn table, unsigned index) const {
    return level == 4 ? index >= kEntries / 2 : frame_[table.raw].upper;
  }
  void mark_upper(Mfn mfn, unsigned level);
  void note_parent(Mfn mfn, Mfn table, unsigned index, bool upper_l4);
  Gva only_address(unsigned level, Mfn table, unsigned index) const;
  bool swap(cpu::Vcpu& cpu, Mfn table, unsigned index, u64 value, bool keep, const u64* expected, bool* stored);

  Layout layout_;
  GuestMemory& ram_;
  u64 count_;
  std::atomic<u64> upper_changes_{0};
  std::array<std::atomic<u64>, 2 * kMostPages> changed_{};  // linear, of the change of that number; 0: anywhere
  bool aliased_ = false;  // a level-3 table is named by different entries of the upper half
  std::unique_ptr<Frame[], void (*)(void*)> frame_;
};

// Bits of a page-table entry.
namespace pte {
inline constexpr u64 present = 1, writable = 2, user = 4, accessed = 32, dirty = 64, large = 128, global = 256,
                     nx = u64{1} << 63;
inline constexpr u64 address = 0x000ffffffffff000;
constexpr Mfn mfn(u64 entry) { return Mfn{(entry & address) >> 12}; }
}  // namespace pte

// The lines of a descriptor page that a guest may have: none that leads to another privilege level. `descriptor` is
// changed as Xen changes it (DPL).
bool check_descriptor(u64* descriptor);

}  // namespace trapline::para::xen
