// ELF64 files for tests, section by section.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "base/types.h"

namespace trapline::scan::testing {

struct SectionSpec {
  std::string name;
  u32 type = 1;
  u64 flags = 6, address = 0x401000;
  std::vector<u8> bytes;
  u32 link = 0, info = 0;
  u64 entry_size = 0;
};

struct SymbolSpec {
  std::string name;
  u64 value = 0, size = 0;
  u8 type = 2;
  u16 section = 1;
};

inline void put(std::vector<u8>& out, const void* from, std::size_t n) {
  const auto* p = static_cast<const u8*>(from);
  out.insert(out.end(), p, p + n);
}
template <class T>
void put(std::vector<u8>& out, T value) {
  put(out, &value, sizeof value);
}

struct SegmentSpec {  // PT_LOAD; its bytes are those of the sections, only addresses and flags count
  u32 flags = 5;
  u64 address = 0, size = 0;
};

class ElfBuilder {
 public:
  u16 type = 2, machine = 62;
  u64 entry = 0;
  std::vector<SectionSpec> sections;  // section 1 on
  std::vector<SymbolSpec> symbols;
  std::vector<SegmentSpec> segments;

  std::vector<u8> build() {
    std::vector<SectionSpec> all = sections;
    if (!symbols.empty()) add_symbols(all);
    all.push_back({".shstrtab", 3, 0, 0, {0}, 0, 0, 0});
    std::vector<u64> names;
    for (const auto& s : all) {
      auto& table = all.back().bytes;
      names.push_back(table.size());
      put(table, s.name.c_str(), s.name.size() + 1);
    }
    std::vector<u8> out(64);
    for (const auto& s : segments) {
      put<u32>(out, 1), put<u32>(out, s.flags), put<u64>(out, 0), put<u64>(out, s.address), put<u64>(out, s.address);
      put<u64>(out, s.size), put<u64>(out, s.size), put<u64>(out, 4096);
    }
    std::vector<u64> offsets;
    for (const auto& s : all) {
      out.resize((out.size() + 15) & ~std::size_t{15});
      offsets.push_back(out.size());
      put(out, s.bytes.data(), s.bytes.size());
    }
    const u64 table = out.size();
    out.resize(out.size() + 64);
    for (std::size_t i = 0; i < all.size(); i++) {
      const auto& s = all[i];
      put<u32>(out, static_cast<u32>(names[i])), put<u32>(out, s.type), put<u64>(out, s.flags);
      put<u64>(out, s.address), put<u64>(out, offsets[i]), put<u64>(out, s.bytes.size());
      put<u32>(out, s.link), put<u32>(out, s.info), put<u64>(out, 1), put<u64>(out, s.entry_size);
    }
    std::vector<u8> head;
    put(head, "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0", 16);
    put<u16>(head, type), put<u16>(head, machine), put<u32>(head, 1), put<u64>(head, entry);
    put<u64>(head, segments.empty() ? 0 : 64);
    put<u64>(head, table), put<u32>(head, 0), put<u16>(head, 64), put<u16>(head, 56);
    put<u16>(head, static_cast<u16>(segments.size()));
    put<u16>(head, 64), put<u16>(head, static_cast<u16>(all.size() + 1)), put<u16>(head, static_cast<u16>(all.size()));
    std::memcpy(out.data(), head.data(), 64);
    return out;
  }

 private:
  void add_symbols(std::vector<SectionSpec>& all) const {
    SectionSpec table{".symtab", 2, 0, 0, std::vector<u8>(24), static_cast<u32>(all.size() + 2), 0, 24};
    SectionSpec strings{".strtab", 3, 0, 0, {0}, 0, 0, 0};
    for (const auto& s : symbols) {
      put<u32>(table.bytes, static_cast<u32>(strings.bytes.size()));
      put<u8>(table.bytes, s.type), put<u8>(table.bytes, 0), put<u16>(table.bytes, s.section);
      put<u64>(table.bytes, s.value), put<u64>(table.bytes, s.size);
      put(strings.bytes, s.name.c_str(), s.name.size() + 1);
    }
    all.push_back(std::move(table));
    all.push_back(std::move(strings));
  }
};

}  // namespace trapline::scan::testing
