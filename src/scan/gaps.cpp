// What nothing leads to: padding, code, or data. Traversal's last step.
#include <algorithm>

#include "scan/traverse.h"

namespace trapline::scan {

namespace {

constexpr unsigned kZeros = 4;  // fewer may be an instruction

bool known(u8 mark) { return mark & (CodeMap::start | CodeMap::inside); }

}  // namespace

void Traversal::mark_all(CodeMap::Area& area, u64 first, u64 end, CodeMap::Mark mark) {
  for (u64 a = first; a < end; a++) area.mark(a) |= mark;
}

// From `at` over NOPs, INT3s and zeros.
u64 Traversal::skip_padding(CodeMap::Area& area, u64 at, u64 end) const {
  while (at < end) {
    const Bytes bytes = area.from(at).first(end - at);
    const auto zeros =
        static_cast<u64>(std::find_if(bytes.begin(), bytes.end(), [](u8 b) { return b; }) - bytes.begin());
    Shallow insn;
    u64 length = zeros >= kZeros || zeros == bytes.size() ? zeros : 0;
    if (length == 0 && decoder_.shallow(bytes, insn) && insn.padding) length = insn.length;
    if (length == 0) break;
    mark_all(area, at, at + length, CodeMap::padding);
    at += length;
  }
  return at;
}

// Whether whole instructions fill the range to its last byte.
bool Traversal::decodes_through(const CodeMap::Area& area, u64 first, u64 end) const {
  Shallow insn;
  u64 at = first;
  while (at < end && decoder_.shallow(area.from(at), insn)) at += insn.length;
  return at == end;
}

bool Traversal::inside_function(u64 first, u64 end) const {
  const auto after = std::upper_bound(image_.symbols.begin(), image_.symbols.end(), first,
                                      [](u64 a, const Symbol& s) { return a < s.address; });
  if (after == image_.symbols.begin()) return false;
  const Symbol& s = *std::prev(after);
  return s.kind == SymbolKind::function && end - s.address <= s.size;
}

void Traversal::sweep(CodeMap::Area& area, u64 first, u64 end, Confidence confidence) {
  for (u64 at = first; (at = skip_padding(area, at, end)) < end;) {
    Shallow insn;
    // Limited to the gap: an instruction that would reach into known code is none.
    if (!decoder_.shallow(area.from(at).first(end - at), insn)) {
      area.mark(at++) |= CodeMap::data;
      continue;
    }
    if (!begin(area, at, confidence, insn)) break;
    at += insn.length;
  }
}

void Traversal::fill_gap(CodeMap::Area& area, u64 first, u64 end) {
  const u64 at = skip_padding(area, first, end);
  if (at == end) return;
  const bool likely = inside_function(at, end) && decodes_through(area, at, end);
  sweep(area, at, end, likely ? Confidence::likely : Confidence::speculative);
}

void Traversal::fill_gaps() {
  for (CodeMap::Area& area : scan_.map.areas()) {
    const u64 base = area.section->address, size = area.marks.size();
    for (u64 i = 0; i < size;) {
      if (known(area.marks[i])) {
        i++;
        continue;
      }
      u64 end = i;
      while (end < size && !known(area.marks[end])) end++;
      fill_gap(area, base + i, base + end);
      i = end;
    }
  }
}

}  // namespace trapline::scan
