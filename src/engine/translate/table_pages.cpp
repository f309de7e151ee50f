#include "engine/translate/table_pages.h"

#include <algorithm>

namespace trapline::engine::translate {

TablePages::TablePages() : entries_{std::make_unique<Entry[]>(kEntries)} {}

// Where it is, or would be.
TablePages::Entry& TablePages::find(u32 mib) const {
  u32 i = mib * 0x9e3779b1u >> (32 - std::countr_zero(kEntries));
  while (entries_[i].key != 0 && entries_[i].key != mib + 1) i = (i + 1) & (kEntries - 1);
  return entries_[i];
}

bool TablePages::touch(Gva linear, u8 v) {
  Entry& e = find(mib(linear));
  const u8 bit = static_cast<u8>(1u << v);
  if (e.views & bit) return true;
  if (count_ == kMost) return false;
  e.key = mib(linear) + 1;
  e.views |= bit;
  count_++;
  return true;
}

bool TablePages::widens(Gva linear, u8 v) {
  constexpr u32 kMibs = kBlock / MiB;
  if (widened_ + kMibs > kMost / 4 || count_ + kMibs > kMost) return false;
  const Gva block{linear.raw & ~(kBlock - 1)};
  unsigned many = 0;
  for (u64 at = 0; at < kBlock; at += MiB) many += (touched(block.wrapping_add(at)) >> v & 1) != 0;
  if (many != kMany) return false;
  for (u64 at = 0; at < kBlock; at += MiB) touch(block.wrapping_add(at), v);
  widened_ += kMibs - many;
  return true;
}

u8 TablePages::touched(Gva linear) const { return find(mib(linear)).views; }

void TablePages::clear() {
  std::fill_n(entries_.get(), kEntries, Entry{});
  count_ = widened_ = 0;
}

}  // namespace trapline::engine::translate
