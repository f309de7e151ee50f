// Which parts of the sparse tables (views.h) have been touched. A guest chooses the addresses that it looks up, and
// each look-up, also one that finds nothing, makes the host give the tables a page: so they are counted, and all is
// given back when there are too many.
//
// The unit is a MiB of guest-virtual address space in one view: a page of the read table and a page of the write table.
// Owned by the vCPU's thread.
#pragma once

#include <bit>
#include <memory>

#include "base/addr.h"
#include "base/types.h"

namespace trapline::engine::translate {

class TablePages {
 public:
  // 8192 pairs: 64 MiB of tables, and no more for the host's page tables behind them. Dense use needs a pair for a MiB.
  static constexpr u32 kMost = 8192;

  TablePages();
  // Notes that view `v` looks up something in this MiB (bits 47:20 of the address). False: that would be one too many.
  bool touch(Gva linear, u8 v);
  // Blocks in which kMany MiBs have been touched are likely to be touched all over: the rest then counts as touched too
  // (true, once). Not beyond a quarter of kMost.
  static constexpr u64 kBlock = 64 * MiB;
  static constexpr unsigned kMany = 6;
  bool widens(Gva linear, u8 v);
  // The views that have, as bits.
  u8 touched(Gva linear) const;
  // Calls `see` with the address of each MiB that was touched and its views.
  template <class See>
  void each(See see) const {
    for (u32 i = 0; i < kEntries; i++)
      if (const Entry& e = entries_[i]; e.key != 0)
        see(Gva{static_cast<u64>(static_cast<i64>(u64{e.key - 1} << 36) >> 16)}, e.views);
  }
  void clear();
  u32 count() const { return count_; }

 private:
  struct Entry {
    u32 key = 0;  // MiB + 1; 0: empty
    u8 views = 0;
  };
  static constexpr u32 kEntries = 32768;  // a quarter full at the most
  static_assert(kEntries >= 4 * kMost && std::has_single_bit(kEntries));
  static u32 mib(Gva linear) { return static_cast<u32>(linear.raw >> 20 & 0xfffffff); }
  Entry& find(u32 mib) const;

  std::unique_ptr<Entry[]> entries_;
  u32 count_ = 0, widened_ = 0;
};

}  // namespace trapline::engine::translate
