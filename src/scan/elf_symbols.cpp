// Function symbols of .symtab and .dynsym; the init and fini arrays.
#include <fmt/format.h>

#include <algorithm>

#include "scan/elf_format.h"

namespace trapline::scan::elf {

namespace {

constexpr u8 kNoType = 0, kFunction = 2, kIndirectFunction = 10;
constexpr u16 kFirstReserved = 0xff00;

std::optional<SymbolKind> kind_of(const SymbolEntry& s) {
  if (s.type() == kFunction || s.type() == kIndirectFunction) return SymbolKind::function;
  if (s.type() == kNoType) return SymbolKind::label;
  return std::nullopt;
}

void add_table(const File& file, const SectionHeader& h, Image& image, const Limits& limits) {
  const Bytes table = file.contents(h);
  const Bytes names = h.link < file.sections.size() ? file.contents(file.sections[h.link]) : Bytes{};
  const u64 count = table.size() / (file.header.is64 ? 24 : 16);
  for (u64 i = 1; i < count; i++) {
    if (image.symbols.size() >= limits.symbols) {
      image.warnings.push_back(fmt::format("more than {} symbols: the rest is left out", limits.symbols));
      return;
    }
    const SymbolEntry s = *symbol_at(file, table, i);
    const auto kind = kind_of(s);
    if (!kind || s.section == 0 || s.section >= kFirstReserved) continue;
    u64 address = s.value;
    if (image.relocatable()) {
      if (s.section >= file.sections.size()) continue;
      const SectionHeader& in = file.sections[s.section];
      if (s.value >= in.size) continue;
      address += in.address;
    }
    if (!image.code_at(address)) continue;
    const std::string_view name = string_at(names, s.name);
    if (name.empty() || name.size() > 4096 || name.front() == '$') continue;
    image.symbols.push_back({address, s.size, std::string{name}, *kind});
  }
}

void add_array(const File& file, const SectionHeader& h, Image& image) {
  const Bytes table = file.contents(h);
  const u64 width = file.header.is64 ? 8 : 4;
  for (u64 at = 0; at + width <= table.size(); at += width) {
    const u64 target = width == 8 ? *load<u64>(table, at) : *load<u32>(table, at);
    if (image.code_at(target)) image.roots.push_back({target, Because::init_array});
  }
}

}  // namespace

std::optional<SymbolEntry> symbol_at(const File& file, Bytes table, u64 index) {
  const u64 size = file.header.is64 ? 24 : 16;
  if (index > table.size() / size) return std::nullopt;
  const auto raw = slice(table, index * size, size);
  if (!raw) return std::nullopt;
  SymbolEntry s;
  s.name = *load<u32>(*raw, 0);
  if (file.header.is64) {
    s.info = (*raw)[4], s.section = *load<u16>(*raw, 6), s.value = *load<u64>(*raw, 8), s.size = *load<u64>(*raw, 16);
  } else {
    s.value = *load<u32>(*raw, 4), s.size = *load<u32>(*raw, 8), s.info = (*raw)[12], s.section = *load<u16>(*raw, 14);
  }
  return s;
}

void add_symbols(const File& file, Image& image, const Limits& limits) {
  for (const SectionHeader& h : file.sections) {
    if (h.type == kSymtab || h.type == kDynsym) add_table(file, h, image, limits);
    const bool array = h.type == kInitArray || h.type == kFiniArray || h.type == kPreinitArray;
    if (array && !image.relocatable()) add_array(file, h, image);
  }
  // Of aliases the function, the longer, the alphabetically first stays: the same one in every run.
  std::sort(image.symbols.begin(), image.symbols.end(), [](const Symbol& a, const Symbol& b) {
    if (a.address != b.address) return a.address < b.address;
    if (a.kind != b.kind) return a.kind < b.kind;
    return a.size != b.size ? a.size > b.size : a.name < b.name;
  });
  const auto last = std::unique(image.symbols.begin(), image.symbols.end(),
                                [](const Symbol& a, const Symbol& b) { return a.address == b.address; });
  image.symbols.erase(last, image.symbols.end());
  for (const Symbol& s : image.symbols)
    image.roots.push_back(
        {s.address, s.kind == SymbolKind::function ? Because::function_symbol : Because::label_symbol});
}

}  // namespace trapline::scan::elf
