// A disk in memory, and the tables that are written to it.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "volume/source.h"

namespace trapline::volume::test {

class MemoryDisk final : public Source {
 public:
  explicit MemoryDisk(u64 bytes) : bytes_(bytes) {}
  u64 size() const override { return bytes_.size(); }
  bool read(u64 offset, std::span<u8> to) const override {
    if (offset > bytes_.size() || to.size() > bytes_.size() - offset) return false;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), to.size(), to.begin());
    return true;
  }

  template <class T>
  void put(u64 offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
  }
  void text(u64 offset, std::string_view value) { std::memcpy(bytes_.data() + offset, value.data(), value.size()); }

  // An entry of an MBR, or of the table of a logical partition.
  void mbr(u64 sector, unsigned index, u8 type, u32 first, u32 sectors) {
    put<u16>(sector * 512 + 510, 0xaa55);
    const u64 at = sector * 512 + 446 + 16 * index;
    put<u8>(at + 4, type);
    put<u32>(at + 8, first);
    put<u32>(at + 12, sectors);
  }
  void gpt_header(u64 at, u64 table_sector, u32 entries, u32 entry_bytes = 128) {
    text(at, "EFI PART");
    put<u64>(at + 72, table_sector);
    put<u32>(at + 80, entries);
    put<u32>(at + 84, entry_bytes);
  }
  void gpt_entry(u64 at, u64 first, u64 last, u8 id) {
    put<u8>(at, 0xaf);  // of some type
    for (unsigned i = 0; i < 16; i++) put<u8>(at + 16 + i, static_cast<u8>(id + i));
    put<u64>(at + 32, first);
    put<u64>(at + 40, last);
  }

 private:
  std::vector<u8> bytes_;
};

}  // namespace trapline::volume::test
