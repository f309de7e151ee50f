// What the guest's page tables say of user pages, read in place and without side effects: what a cage may map, and
// whether what it has mapped still holds. Intel SDM Vol. 3A 4.5 (4-level paging), 4.6.1 (access rights).
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine::patch {

struct UserPage {
  Gpa gpa;                // of the 4 KiB page
  bool present = false;   // for user mode, and A is set: whoever maps it need not set it
  bool writable = false;  // and D is set
  bool executable = false;
};

// The 512 pages of one 2 MiB region of a 64-bit guest's lower half.
class UserRegion {
 public:
  // root: the top-level table of the address space.
  UserRegion(const cpu::Vcpu& cpu, Gpa root, Gva linear);
  bool any() const { return entries_ != nullptr || large_; }
  bool large() const { return large_ != 0; }
  UserPage page(unsigned index) const;

 private:
  static constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 32, kDirty = 64, kLarge = 128;
  const u64* table(const cpu::Vcpu& cpu, u64 entry) const;
  UserPage from(u64 leaf, Gpa gpa) const;
  const u64* entries_ = nullptr;                // the page table
  u64 large_ = 0;                               // or the entry of a large page
  Gpa large_base_;                              // and what lies at the region's start
  u64 rights_ = kWritable | kUser | kAccessed;  // of the upper levels, ANDed
  bool nx_ = false;
};

// Calls `visit(region)` with each 2 MiB region of the lower half that has tables, by number (address / 2 MiB), until it
// returns false.
template <class Visit>
void each_region(const cpu::Vcpu& cpu, Gpa root, Visit visit) {
  constexpr u64 kPresent = 1, kLarge = 128, kAddress = 0x000ffffffffff000;
  const auto table = [&](u64 entry) {
    const Gpa at{entry & kAddress};
    return cpu.ram->is_ram(at) ? reinterpret_cast<const u64*>(cpu.ram->host(at)) : nullptr;
  };
  const u64* const top = table(root.raw);
  for (u64 i = 0; top && i < 256; i++) {
    const u64* const second = top[i] & kPresent ? table(top[i]) : nullptr;
    for (u64 j = 0; second && j < 512; j++) {
      const u64* const third = (second[j] & kPresent) && !(second[j] & kLarge) ? table(second[j]) : nullptr;
      for (u64 k = 0; third && k < 512; k++)
        if ((third[k] & kPresent) && !visit((i << 18) | (j << 9) | k)) return;
    }
  }
}

}  // namespace trapline::engine::patch
