// Nothing points at the tables, so they are found by their shape, starting from the one that is like nothing else:
//
//   [offsets, relative_base]  num_syms  names  markers  [order]  token_table  token_index  [offsets, [relative_base]]
//    up to 6.3                                           6.2, 6.3                          from 6.4; base until 7.0
//
// Each begins at a multiple of the word, in kernels without relative_base of 4 bytes. Those (Linux commit "kallsyms:
// Get rid of kallsyms relative base", January 2026) store the distance of a symbol from the entry itself.
//
// token_table: 256 strings; a character that occurs in names stands for itself, so '0' to '9' follow each other.
// token_index: u16 offsets of the tokens. names: length, then that many tokens. markers: u32 offset in names of every
// 256th symbol. offsets: u32 per symbol, against relative_base.
#include "scan/kallsyms.h"

#include <algorithm>

namespace trapline::scan {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view kDigits = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0"sv;
constexpr u64 kMostNames = 64 * MiB;
constexpr u64 kLeastSymbols = 16;
constexpr u64 kMostName = 1024;

u64 align_up(u64 v, u64 to) { return (v + to - 1) / to * to; }

// Names looked at, over all guesses: a file made for it could make each guess fail late.
constexpr u64 kMostSteps = 50'000'000;

struct Tables {
  Bytes data;  // the section
  u64* steps = nullptr;
  u64 word = 8;                     // of an address
  u64 align = 8;                    // of each table; num_syms is as wide
  bool relative = false;            // offsets count from their own place
  u64 tokens = 0, token_index = 0;  // offsets in data
  u64 count_at = 0, names = 0;
  u32 count = 0;
  bool long_lengths = true;  // a length above 127 has a second byte: from 6.1
  u64 base = 0, offsets = 0;
};

bool index_fits(const Tables& t) {
  u64 at = 0;
  for (u64 i = 0; i < 256; i++) {
    if (load<u16>(t.data, t.token_index + i * 2) != static_cast<u16>(at) || at > 0xffff) return false;
    const auto token = string_at(t.data, t.tokens + at);
    if (t.tokens + at + token.size() >= t.token_index || token.size() > 255) return false;
    at += token.size() + 1;
  }
  return true;
}

// `digits`: where token '0' is.
bool find_tokens(Tables& t, u64 digits) {
  u64 end = digits;
  for (unsigned i = '0'; i < 256; i++) {
    const u64 left = t.data.size() - end;
    const void* nul = left ? std::memchr(t.data.data() + end, 0, std::min<u64>(left, 256)) : nullptr;
    if (!nul) return false;
    end = static_cast<u64>(static_cast<const u8*>(nul) - t.data.data()) + 1;
  }
  t.token_index = align_up(end, t.align);
  const auto before = load<u16>(t.data, t.token_index + '0' * 2);
  if (!before || *before > digits) return false;
  t.tokens = digits - *before;
  return index_fits(t);
}

// One symbol's tokens; false at the end of the table.
bool next_name(const Tables& t, u64& at, Bytes& tokens) {
  auto length = load<u8>(t.data, at);
  if (!length) return false;
  u64 n = *length, head = 1;
  if (t.long_lengths && (n & 0x80)) {
    const auto more = load<u8>(t.data, at + 1);
    if (!more) return false;
    n = (n & 0x7f) | u64{*more} << 7;
    head = 2;
  }
  const auto found = slice(t.data, at + head, n);
  if (!found || n == 0) return false;
  tokens = *found;
  at += head + n;
  return true;
}

// Whether `count` names stand at t.names, followed by markers that agree.
bool names_fit(const Tables& t) {
  std::vector<u32> places;
  u64 at = t.names;
  Bytes tokens;
  for (u32 i = 0; i < t.count; i++) {
    if (i % 256 == 0) places.push_back(static_cast<u32>(at - t.names));
    if (++*t.steps > kMostSteps || !next_name(t, at, tokens) || at > t.tokens) return false;
  }
  at = align_up(at, t.align);
  for (std::size_t i = 0; i < places.size(); i++)
    if (load<u32>(t.data, at + i * 4) != places[i]) return false;
  return true;
}

// num_syms is the word before names that fit it.
bool find_names(Tables& t, u64 most) {
  const u64 latest = t.tokens / t.align * t.align, earliest = latest > kMostNames ? latest - kMostNames : 0;
  for (u64 at = latest; at > earliest + t.align && *t.steps < kMostSteps;) {
    at -= t.align;
    const u64 count = load_word(t.data, at, static_cast<unsigned>(t.align)).value_or(0);
    if (count < kLeastSymbols || count > most) continue;
    t.count = static_cast<u32>(count);
    t.count_at = at;
    t.names = at + t.align;
    for (bool long_lengths : {true, false}) {
      t.long_lengths = long_lengths;
      if (names_fit(t)) return true;
    }
  }
  return false;
}

bool base_fits(const Image& image, const Tables& t) { return t.base != 0 && image.code_at(t.base); }

// Symbols are sorted by address, and some of them are functions.
bool distances_fit(const Image& image, const Section& s, const Tables& t) {
  u64 last = 0, in_code = 0;
  for (u32 i = 0; i < t.count; i++) {
    const u64 place = t.offsets + i * u64{4};
    const auto distance = load<i32>(t.data, place);
    if (!distance) return false;
    const u64 address = s.address + place + static_cast<u64>(i64{*distance});
    if (address < last) return false;
    last = address;
    in_code += image.code_at(address) != nullptr;
  }
  return in_code >= t.count / 8;
}

bool find_offsets(const Image& image, const Section& s, Tables& t) {
  const u64 size = align_up(u64{t.count} * 4, t.align);
  if (t.count_at >= size + t.word) {
    t.base = load_word(t.data, t.count_at - t.word, static_cast<unsigned>(t.word)).value_or(0);
    t.offsets = t.count_at - t.word - size;
    if (base_fits(image, t)) return true;
  }
  t.offsets = align_up(t.token_index + 512, t.align);
  t.base = load_word(t.data, t.offsets + size, static_cast<unsigned>(t.word)).value_or(0);
  if (base_fits(image, t)) return true;
  t.relative = distances_fit(image, s, t);
  return t.relative;
}

std::string expand(const Tables& t, Bytes tokens) {
  std::string name;
  for (u8 token : tokens) {
    name += string_at(t.data, t.tokens + load<u16>(t.data, t.token_index + token * 2u).value_or(0));
    if (name.size() > kMostName) break;
  }
  return name;
}

// With per-CPU symbols as absolute values, all others are stored negative (CONFIG_KALLSYMS_ABSOLUTE_PERCPU).
bool negative_offsets(const Tables& t) {
  u32 negative = 0;
  for (u32 i = 0; i < t.count; i++) negative += load<i32>(t.data, t.offsets + i * u64{4}).value_or(0) < 0;
  return negative > t.count / 2;
}

void add(Image& image, u64 tables_at, const Tables& t) {
  const bool negative = !t.relative && negative_offsets(t);
  std::vector<Symbol> found;
  u64 at = t.names;
  Bytes tokens;
  for (u32 i = 0; i < t.count && next_name(t, at, tokens); i++) {
    const i32 offset = load<i32>(t.data, t.offsets + i * u64{4}).value_or(0);
    if (negative && offset >= 0) continue;
    const u64 distance = static_cast<u64>(i64{offset});
    u64 address = t.relative ? tables_at + t.offsets + i * u64{4} + distance
                  : negative ? t.base - 1 - distance
                             : t.base + static_cast<u32>(offset);
    if (t.word == 4) address = static_cast<u32>(address);
    if (!image.code_at(address)) continue;
    std::string name = expand(t, tokens);
    if (name.size() < 2 || (name[0] | 0x20) == 'a') continue;  // the first character is the type; a: no place
    found.push_back({address, 0, name.substr(1), SymbolKind::function});
  }
  // The kernel lists the best of several names for a place first.
  std::stable_sort(found.begin(), found.end(), [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  found.erase(
      std::unique(found.begin(), found.end(), [](const Symbol& a, const Symbol& b) { return a.address == b.address; }),
      found.end());
  for (std::size_t i = 0; i < found.size(); i++) {
    const u64 end = image.code_at(found[i].address)->end();
    found[i].size = std::min(end, i + 1 < found.size() ? found[i + 1].address : end) - found[i].address;
    image.roots.push_back({found[i].address, Because::function_symbol});
  }
  if (image.symbols.empty()) image.symbols = std::move(found);
}

}  // namespace

void add_kallsyms(Image& image, const Limits& limits) {
  if (!image.symbols.empty()) return;
  u64 steps = 0;
  for (const Section& s : image.sections) {
    if (s.code || s.bytes.size() < 4096) continue;
    const auto* begin = reinterpret_cast<const char*>(s.bytes.data());
    const std::string_view text{begin, s.bytes.size()};
    unsigned tries = 0;
    for (u64 at = text.find(kDigits); at != std::string_view::npos && tries < 64;
         at = text.find(kDigits, at + 1), tries++) {
      const u64 word = image.code_size == isa::CodeSize::bits64 ? 8 : 4;
      for (const u64 align : {word, u64{4}}) {
        Tables t;
        t.data = s.bytes;
        t.steps = &steps;
        t.word = word;
        t.align = align;
        if (!find_tokens(t, at) || !find_names(t, limits.symbols)) continue;
        if (!find_offsets(image, s, t)) continue;
        add(image, s.address, t);
        return;
      }
    }
  }
  image.warnings.push_back("no symbol table, and no kallsyms of a known layout: functions have no names");
}

}  // namespace trapline::scan
