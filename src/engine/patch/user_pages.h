// What the guest's page tables say of user pages, read in place and without side effects: what a cage may map, and
// whether what it has mapped still holds. Intel SDM Vol. 3A 4.5 (4-level paging), 4.6.1 (access rights).
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine::patch {

struct UserPage {
  u64 gpa = 0;           // of the 4 KiB page
  bool present = false;  // for user mode, and A is set: whoever maps it need not set it
  bool writable = false;  // and D is set
  bool executable = false;
};

// The 512 pages of one 2 MiB region of a 64-bit guest's lower half.
class UserRegion {
 public:
  // root: CR3 of the address space.
  UserRegion(const cpu::Vcpu& cpu, u64 root, u64 linear);
  bool any() const { return entries_ != nullptr || large_; }
  UserPage page(unsigned index) const;

 private:
  static constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 32, kDirty = 64, kLarge = 128;
  const u64* table(const cpu::Vcpu& cpu, u64 entry) const;
  UserPage from(u64 leaf, u64 gpa) const;
  const u64* entries_ = nullptr;  // the page table
  u64 large_ = 0;                 // or the entry of a large page
  u64 large_base_ = 0;            // and what lies at the region's start
  u64 rights_ = kWritable | kUser | kAccessed;  // of the upper levels, ANDed
  bool nx_ = false;
};

}  // namespace trapline::engine::patch
