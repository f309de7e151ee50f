#include "scan/every_offset.h"

#include <algorithm>
#include <thread>

#include "scan/decoder.h"

namespace trapline::scan {

namespace {

void look(const CodeMap::Area& area, u64 first, u64 end, const Decoder& decoder, std::vector<Finding>& out) {
  const Bytes bytes = area.section->bytes;
  Shallow insn;
  for (u64 at = first; at < end; at++) {
    if (area.marks[at] & CodeMap::start) continue;
    const Bytes here = bytes.subspan(at);
    if (!decoder.shallow(here, insn) || !insn.maybe_sensitive) continue;
    const isa::Row* row = decoder.classify(here);
    if (!row) continue;
    Finding f{area.section->address + at, row->id, insn.length, {}, Confidence::none, true};
    std::copy_n(here.begin(), insn.length, f.bytes.begin());
    out.push_back(f);
  }
}

}  // namespace

std::vector<Finding> hidden_instructions(const CodeMap& map, isa::CodeSize size) {
  const Decoder decoder{size};
  std::vector<Finding> found;
  for (const CodeMap::Area& area : map.areas()) {
    const u64 total = area.marks.size(), half = total / 2;
    std::vector<Finding> second;
    std::thread other{[&] { look(area, half, total, decoder, second); }};
    look(area, 0, half, decoder, found);
    other.join();
    found.insert(found.end(), second.begin(), second.end());
  }
  return found;
}

}  // namespace trapline::scan
