// Relocations. In linked files they tell where addresses of code are stored: roots. In relocatable files code is left
// as it stands and its relocations are kept beside it, while tables are scanned in relocated copies. i386 psABI 4.4.1,
// x86-64 psABI 4.4.1; SHT_RELR: gABI, "Relative Relocation Table".
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "scan/elf_format.h"

namespace trapline::scan::elf {

namespace {

struct Entry {
  u64 offset = 0;
  u32 type = 0, symbol = 0;
  std::optional<i64> addend;  // absent: in the field itself
};

struct Field {
  u8 width = 0;
  bool relative = false;
};

std::optional<Field> field_of(u16 machine, u32 type) {
  if (machine == kMachineX86_64) switch (type) {
      case 1:  // R_X86_64_64
        return Field{8, false};
      case 2:  // PC32
      case 4:  // PLT32
        return Field{4, true};
      case 10:  // 32
      case 11:  // 32S
        return Field{4, false};
      case 24:  // PC64
        return Field{8, true};
      default:
        return std::nullopt;
    }
  switch (type) {
    case 1:  // R_386_32
      return Field{4, false};
    case 2:  // PC32
    case 4:  // PLT32
      return Field{4, true};
    default:
      return std::nullopt;
  }
}

class Relocations {
 public:
  Relocations(const File& file, Image& image, const Limits& limits) : file_{file}, image_{image}, limits_{limits} {}

  void read(const SectionHeader& h) {
    const bool rela = h.type == kRela, is64 = file_.header.is64;
    const u64 size = is64 ? (rela ? 24 : 16) : (rela ? 12 : 8);
    const Bytes table = file_.contents(h);
    const u64 count = table.size() / size;
    for (u64 i = 0; i < count; i++) {
      if (++seen_ > limits_.relocations) {
        if (seen_ == limits_.relocations + 1) image_.warnings.push_back("too many relocations: the rest is left out");
        return;
      }
      const Bytes raw = *slice(table, i * size, size);
      Entry e;
      e.offset = is64 ? *load<u64>(raw, 0) : *load<u32>(raw, 0);
      const u64 info = is64 ? *load<u64>(raw, 8) : *load<u32>(raw, 4);
      e.type = static_cast<u32>(is64 ? info & 0xffffffff : info & 0xff);
      e.symbol = static_cast<u32>(is64 ? info >> 32 : info >> 8);
      if (rela) e.addend = is64 ? *load<i64>(raw, 16) : *load<i32>(raw, 8);
      if (image_.relocatable())
        relocate(h, e);
      else
        note_pointer(e);
    }
  }

  // Packed: an even word is an address to relocate, an odd one a map of the 63 (31) words that follow.
  void read_relr(const SectionHeader& h) {
    const Bytes table = file_.contents(h);
    const u64 width = file_.header.is64 ? 8 : 4;
    u64 place = 0;
    for (u64 at = 0; at + width <= table.size(); at += width) {
      const u64 word = width == 8 ? *load<u64>(table, at) : *load<u32>(table, at);
      if (!(word & 1)) {
        place = word;
        note_stored(place);
        place += width;
        continue;
      }
      for (u64 bit = 1; bit < width * 8; bit++)
        if (word >> bit & 1) note_stored(place + (bit - 1) * width);
      place += (width * 8 - 1) * width;
    }
  }

  // The image's sections now show the relocated copies.
  void finish() {
    std::sort(image_.code_relocations.begin(), image_.code_relocations.end(),
              [](const CodeRelocation& a, const CodeRelocation& b) { return a.place < b.place; });
    for (auto& [index, copy] : copies_) {
      image_.patched.push_back(copy);
      image_.sections[index].bytes = Bytes{*copy};
    }
  }

 private:
  void note(u64 target) {
    if (image_.code_at(target)) image_.roots.push_back({target, Because::pointer});
  }

  void note_stored(u64 place) {
    const Section* s = image_.section_of(place);
    if (!s) return;
    if (const auto v = load_word(s->bytes, place - s->address, file_.header.is64 ? 8 : 4)) note(*v);
  }

  void note_pointer(const Entry& e);
  void relocate(const SectionHeader& table, const Entry& e);
  std::optional<u64> symbol_value(const SectionHeader& table, u32 index) const;
  std::vector<u8>& copy_of(std::size_t section);

  const File& file_;
  Image& image_;
  const Limits& limits_;
  u64 seen_ = 0;
  std::unordered_map<std::size_t, std::shared_ptr<std::vector<u8>>> copies_;
};

// RELATIVE and IRELATIVE store an address of this file; 64 and 32 one plus a symbol, whose table is read anyway.
void Relocations::note_pointer(const Entry& e) {
  const bool x64 = file_.header.machine == kMachineX86_64;
  const u32 relative = 8, indirect = x64 ? 37 : 42;
  if (e.type != relative && e.type != indirect) return;
  if (e.addend)
    note(file_.header.is64 ? static_cast<u64>(*e.addend) : static_cast<u32>(*e.addend));
  else
    note_stored(e.offset);
}

std::optional<u64> Relocations::symbol_value(const SectionHeader& table, u32 index) const {
  if (table.link >= file_.sections.size()) return std::nullopt;
  const auto s = symbol_at(file_, file_.contents(file_.sections[table.link]), index);
  if (!s || s->section == 0 || s->section >= file_.sections.size()) return std::nullopt;
  return file_.sections[s->section].address + s->value;
}

std::vector<u8>& Relocations::copy_of(std::size_t section) {
  auto& copy = copies_[section];
  if (!copy) {
    const Bytes from = image_.sections[section].bytes;
    copy = std::make_shared<std::vector<u8>>(from.begin(), from.end());
  }
  return *copy;
}

void Relocations::relocate(const SectionHeader& table, const Entry& e) {
  if (table.info >= file_.sections.size() || file_.image_section[table.info] < 0) return;
  const auto index = static_cast<std::size_t>(file_.image_section[table.info]);
  const Section& in = image_.sections[index];
  const auto field = field_of(file_.header.machine, e.type);
  if (!field || e.offset > in.bytes.size() || in.bytes.size() - e.offset < field->width) return;
  const auto symbol = symbol_value(table, e.symbol);
  // i386 has REL only, and its fields are 32 bits wide.
  const i64 addend = e.addend ? *e.addend : load<i32>(in.bytes, e.offset).value_or(0);
  const u64 value = symbol.value_or(0) + static_cast<u64>(addend), place = in.address + e.offset;
  if (in.code) {
    image_.code_relocations.push_back({place, value, field->relative, symbol.has_value()});
    return;
  }
  if (!symbol) return;
  const u64 stored = field->relative ? value - place : value;
  std::memcpy(copy_of(index).data() + e.offset, &stored, field->width);
  if (!field->relative) note(value);
}

}  // namespace

void add_relocations(const File& file, Image& image, const Limits& limits) {
  Relocations r{file, image, limits};
  for (const SectionHeader& h : file.sections) {
    if (h.type == kRela || h.type == kRel) r.read(h);
    if (h.type == kRelr && !image.relocatable()) r.read_relr(h);
  }
  r.finish();
}

}  // namespace trapline::scan::elf
