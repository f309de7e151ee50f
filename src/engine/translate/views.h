// The software TLB of translated code: sparse tables indexed by the guest page, so that a look-up needs no tag, no
// compare and no flag.
//
// A *view* is what one kind of access may see: the kernel under SMAP, the kernel with AC = 1 (or without SMAP), the
// user. GS has the base of the current view while translated code runs:
//
//   gs: - kJumpBytes   jump cache: kJumps pairs {-gva of a block, its host entry}
//   gs: 0              read table:  1 TiB of address space, 8-byte slots
//   gs: kWriteTable    write table: likewise
//
// The slot of an access is page(first byte) + page(last byte), in 36 bits each. An access inside page P finds slot 2P,
// which holds (host address - gva); one that crosses into the next page finds slot 2P + 1, which is always 0. 0 means:
// take the slow path. A non-canonical gva finds the entry of a canonical one, but its sum is a non-canonical host
// address, which faults.
//
// Entries are a subset of what the guest's TLB may hold: TlbMirror's calls take them away. Owned by the vCPU's thread.
#pragma once

#include <optional>
#include <vector>

#include "cpu/mmu.h"

namespace trapline::engine::translate {

enum class View : u8 { kernel, kernel_ac, user };
inline constexpr unsigned kViews = 3;

struct JumpSlot {
  u64 negated = 0;  // - gva; an empty slot has one that is looked up elsewhere
  u64 entry = 0;
};

class Views final : public cpu::TlbMirror {
 public:
  static constexpr u64 kTableBytes = u64{1} << 40;
  static constexpr u64 kWriteTable = kTableBytes;
  static constexpr u64 kJumps = 131072;
  static constexpr u64 kJumpMask = kJumps - 1;  // of the gva's bits that choose the slot
  static constexpr u64 kJumpBytes = kJumps * sizeof(JumpSlot);
  // What translated code adds to GS for an access: see above.
  static constexpr u64 slot_offset(u64 linear, unsigned size, bool write) {
    const u64 pages = ((linear & kPageBits) >> 12) + (((linear + size - 1) & kPageBits) >> 12);
    return pages * 8 + (write ? kWriteTable : 0);
  }
  static constexpr i32 jump_offset(u64 linear) {
    return static_cast<i32>((linear & kJumpMask) * sizeof(JumpSlot)) - static_cast<i32>(kJumpBytes);
  }
  static constexpr u64 kPageBits = 0xfffffffff000;  // of a gva: the 36 bits of its page number

  // Error: no address space for the tables.
  static std::unique_ptr<Views> make(const cpu::Vcpu& cpu);
  ~Views() override;

  u64 base(View v) const { return base_[static_cast<u8>(v)]; }  // what GS holds

  // `addend` for accesses to the page of `linear`; what for: `write` also fills the read slot when `read` says so.
  void fill(View v, u64 linear, u64 gpa_page, u64 addend, bool global, u8 page_shift, bool read, bool write);
  // `stable`: mapped by a global page of the upper half, so a switch of address spaces leaves it.
  void put_jump(View v, u64 linear, u64 entry, bool stable);
  u64 find_jump(View v, u64 linear) const;
  void forget_jumps();
  void forget_write(View v, u64 linear) { *slot(static_cast<u8>(v), linear, true) = 0; }

  // Set when the mapping of stable code may have changed: look at it again before running it.
  bool upper_code_remapped = false;
  u64 fills = 0, flushes = 0;

  void flushed_all() override;
  void flushed_nonglobal() override;
  void flushed_page(u64 linear) override;
  void switched() override;
  void dropped_write(u64 gpa_page) override;
  void dropped_all_write() override;

 private:
  Views() = default;
  struct Filled {
    u64 linear;  // page address
    u64 gpa;
    u8 view, page_shift;
    bool global, write;
  };
  // Fills until all is given up, the tables' memory too: a guest can make a page of them count for one of its own.
  static constexpr u64 kMost = 1 << 16;
  void purge();
  u64 since_purge_ = 0;
  u64* slot(u8 view, u64 linear, bool write) const {
    return reinterpret_cast<u64*>(base_[view] + (write ? kWriteTable : 0)) + ((linear & kPageBits) >> 12) * 2;
  }
  void clear(const Filled& f) const {
    *slot(f.view, f.linear, false) = 0;
    if (f.write) *slot(f.view, f.linear, true) = 0;
  }
  void drop_all(std::vector<Filled>& list);
  void forget_unstable_jumps();

  u64 base_[kViews] = {};
  void* map_[kViews] = {};
  // Global pages of the upper half stay for long: apart, so that a flush need not look at them.
  std::vector<Filled> global_, upper_, lower_;
  bool large_filled_ = false;
  std::vector<u32> stable_[kViews], unstable_[kViews];  // indices of the filled slots; a slot may be in both
  std::vector<u8> writer_;                              // by frame: may have entries in a write table
};

}  // namespace trapline::engine::translate
