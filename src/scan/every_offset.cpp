#include "scan/every_offset.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "isa/prefixes.h"
#include "scan/decoder.h"

namespace trapline::scan {

namespace {

// Most offsets need no decoding: behind prefixes stands an opcode that has no row in any form. Made by decoding every
// opcode of the first two maps with every ModRM byte under every mandatory prefix.
class Heads {
 public:
  explicit Heads(const Decoder& decoder) {
    for (unsigned op = 0; op < 256; op++) {
      prefix_[op] = isa::is_prefix(static_cast<u8>(op), decoder.code_size());
      one_[op] = any_form(decoder, 0, static_cast<u8>(op));
      two_[op] = any_form(decoder, 0x0f, static_cast<u8>(op));
    }
    for (const unsigned longer : {0x62u, 0x8fu, 0xc4u, 0xc5u}) one_[longer] = true;  // EVEX, XOP, VEX
    for (const unsigned longer : {0x0fu, 0x38u, 0x3au}) two_[longer] = true;         // 3DNow!, third and fourth map
  }

  bool possible(Bytes bytes) const {
    const std::size_t most = std::min<std::size_t>(bytes.size(), 15);
    std::size_t i = 0;
    while (i < most && prefix_[bytes[i]]) i++;
    if (i >= most) return false;
    if (bytes[i] != 0x0f) return one_[bytes[i]];
    return i + 1 < most && two_[bytes[i + 1]];
  }

 private:
  static constexpr u8 kMandatory[] = {0x00, 0x66, 0xf2, 0xf3};
  // `map`: 0 for the first, 0x0f for the second.
  static bool any_form(const Decoder& decoder, u8 map, u8 opcode) {
    for (const u8 prefix : kMandatory)
      for (unsigned modrm = 0; modrm < 256; modrm++) {
        std::array<u8, 15> bytes{};
        std::size_t n = 0;
        if (prefix) bytes[n++] = prefix;
        if (map) bytes[n++] = map;
        bytes[n++] = opcode;
        bytes[n] = static_cast<u8>(modrm);
        Shallow insn;
        if (decoder.shallow(bytes, insn) && insn.maybe_sensitive) return true;
      }
    return false;
  }

  std::array<bool, 256> prefix_{}, one_{}, two_{};
};

struct Found {
  std::vector<Finding> list;
  u64 left_out = 0;
};

void look(const CodeMap::Area& area, u64 first, u64 end, const Decoder& decoder, const Heads& heads, u64 most,
          Found& out) {
  const Bytes bytes = area.section->bytes;
  Shallow insn;
  for (u64 at = first; at < end; at++) {
    if (area.marks[at] & CodeMap::start) continue;
    const Bytes here = bytes.subspan(at);
    if (!heads.possible(here) || !decoder.shallow(here, insn) || !insn.maybe_sensitive) continue;
    const isa::Row* row = decoder.classify(here);
    if (!row) continue;
    if (out.list.size() >= most) {
      out.left_out++;
      continue;
    }
    Finding f{area.section->address + at, row->id, insn.length, {}, Confidence::none, true};
    std::copy_n(here.begin(), insn.length, f.bytes.begin());
    out.list.push_back(f);
  }
}

}  // namespace

// No row depends on the vendor, so one reading finds them all.
void add_hidden_instructions(Scan& scan, isa::CodeSize size, const ScanOptions& options) {
  const Decoder decoder{size, options.vendors == Vendors::amd ? isa::Vendor::amd : isa::Vendor::intel};
  const Heads heads{decoder};
  for (const CodeMap::Area& area : std::as_const(scan.map).areas()) {
    const u64 total = area.marks.size(), half = total / 2;
    const u64 most = options.most_findings - scan.hidden.size();
    Found one, two;
    std::thread other{[&] { look(area, half, total, decoder, heads, most, two); }};
    look(area, 0, half, decoder, heads, most, one);
    other.join();
    scan.hidden.insert(scan.hidden.end(), one.list.begin(), one.list.end());
    const u64 kept = std::min<u64>(two.list.size(), most - one.list.size());
    scan.hidden.insert(scan.hidden.end(), two.list.begin(), two.list.begin() + static_cast<std::ptrdiff_t>(kept));
    scan.left_out += one.left_out + two.left_out + (two.list.size() - kept);
  }
}

}  // namespace trapline::scan
