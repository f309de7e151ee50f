#include "scan/unwind.h"

#include <algorithm>
#include <unordered_map>

namespace trapline::scan {

namespace {

constexpr u8 kOmitted = 0xff, kPcRelative = 0x10;

class Cursor {
 public:
  Cursor(Bytes bytes, u64 at, u64 end) : bytes_{bytes.first(std::min<u64>(end, bytes.size()))}, at_{at} {}
  template <class T>
  T take() {
    const auto v = load<T>(bytes_, at_);
    bad_ |= !v;
    at_ += sizeof(T);
    return v.value_or(T{});
  }
  void skip_leb() {
    for (unsigned i = 0; i < 10 && !bad_; i++)
      if (!(take<u8>() & 0x80)) return;
    bad_ = true;
  }
  u64 at() const { return at_; }
  bool bad() const { return bad_; }

 private:
  Bytes bytes_;
  u64 at_;
  bool bad_ = false;
};

// DW_EH_PE: the low four bits are the format. Nothing for what no function start is stored as.
std::optional<u64> encoded(Cursor& c, u8 encoding, u64 section, bool is64) {
  const u64 place = section + c.at();
  u64 value = 0;
  switch (encoding & 15) {
    case 0:
      value = is64 ? c.take<u64>() : c.take<u32>();
      break;
    case 3:
      value = c.take<u32>();
      break;
    case 11:
      value = static_cast<u64>(i64{c.take<i32>()});
      break;
    case 4:
    case 12:
      value = c.take<u64>();
      break;
    default:
      return std::nullopt;
  }
  if ((encoding & 0x70) == kPcRelative)
    value += place;
  else if (encoding & 0xf0)
    return std::nullopt;
  if (c.bad()) return std::nullopt;
  return is64 ? value : static_cast<u32>(value);
}

// The FDEs' pointer encoding ('R' in the augmentation).
u8 encoding_of_cie(Bytes bytes, u64 at, u64 end, bool is64) {
  Cursor c{bytes, at, end};
  const u8 version = c.take<u8>();
  const std::string_view augmentation = string_at(bytes, c.at());
  c = Cursor{bytes, c.at() + augmentation.size() + 1, end};
  if (version == 4) c.take<u16>();
  if (augmentation.starts_with("eh")) is64 ? void(c.take<u64>()) : void(c.take<u32>());
  c.skip_leb();
  c.skip_leb();
  if (version == 1)
    c.take<u8>();
  else
    c.skip_leb();
  if (!augmentation.starts_with('z')) return 0;
  c.skip_leb();
  for (char letter : augmentation.substr(1)) {
    if (letter == 'R') return c.bad() ? kOmitted : c.take<u8>();
    if (letter == 'L') c.take<u8>();
    if (letter == 'P' && !encoded(c, c.take<u8>() & 0x7f, 0, is64)) return kOmitted;
    if (c.bad()) break;
  }
  return 0;
}

struct Found {
  u64 address, size;
};

std::vector<Found> read_entries(const Image& image, const Section& s, const Limits& limits) {
  const bool is64 = image.code_size == isa::CodeSize::bits64;
  std::unordered_map<u64, u8> encodings;
  std::vector<Found> found;
  for (u64 at = 0; at + 8 <= s.bytes.size() && found.size() < limits.symbols;) {
    const u32 length = *load<u32>(s.bytes, at);
    if (length == 0) {  // a terminator; linked files may go on behind one
      at += 4;
      continue;
    }
    const u64 id_at = at + 4, end = id_at + length;
    if (length == 0xffffffff || length < 4 || end > s.bytes.size()) break;
    const u32 id = *load<u32>(s.bytes, id_at);
    at = end;
    if (id == 0 || id > id_at) continue;
    const u64 cie = id_at - id;
    auto known = encodings.find(cie);
    if (known == encodings.end()) {
      const u64 cie_end = cie + 4 + load<u32>(s.bytes, cie).value_or(0);
      known = encodings.emplace(cie, encoding_of_cie(s.bytes, cie + 8, cie_end, is64)).first;
    }
    if (known->second == kOmitted) continue;
    Cursor c{s.bytes, id_at + 4, end};
    const auto start = encoded(c, known->second, s.address, is64);
    const auto size = encoded(c, known->second & 15, 0, is64);
    const Section* code = start ? image.code_at(*start) : nullptr;
    if (code && size && *size && *size <= code->end() - *start) found.push_back({*start, *size});
  }
  return found;
}

}  // namespace

void add_unwind_entries(Image& image, const Limits& limits) {
  std::vector<Found> found;
  for (const Section& s : image.sections)
    if (s.name == ".eh_frame") found = read_entries(image, s, limits);
  std::vector<Symbol> nameless;
  for (const Found& f : found) {
    image.roots.push_back({f.address, Because::unwind_entry});
    const auto at = std::lower_bound(image.symbols.begin(), image.symbols.end(), f.address,
                                     [](const Symbol& s, u64 a) { return s.address < a; });
    if (at == image.symbols.end() || at->address != f.address)
      nameless.push_back({f.address, f.size, {}, SymbolKind::function});
    else if (at->size == 0)
      at->size = f.size;
  }
  image.symbols.insert(image.symbols.end(), nameless.begin(), nameless.end());
  std::stable_sort(image.symbols.begin(), image.symbols.end(),
                   [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  image.symbols.erase(std::unique(image.symbols.begin(), image.symbols.end(),
                                  [](const Symbol& a, const Symbol& b) { return a.address == b.address; }),
                      image.symbols.end());
}

}  // namespace trapline::scan
