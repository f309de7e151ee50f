#include "scan/image.h"

#include <algorithm>

namespace trapline::scan {

const Section* Image::section_of(u64 address) const {
  auto after = std::upper_bound(sections.begin(), sections.end(), address,
                                [](u64 a, const Section& s) { return a < s.address; });
  // Sections without bytes or with overlapping data may come between.
  for (unsigned back = 0; after != sections.begin() && back < 16; back++) {
    --after;
    if (after->holds(address)) return &*after;
  }
  return nullptr;
}

void Image::index_code() {
  code_.clear();
  for (std::size_t i = 0; i < sections.size(); i++)
    if (sections[i].code) code_.push_back(i);
}

const Section* Image::code_at(u64 address) const {
  const auto after = std::upper_bound(code_.begin(), code_.end(), address,
                                      [&](u64 a, std::size_t i) { return a < sections[i].address; });
  if (after == code_.begin()) return nullptr;
  const Section& s = sections[*std::prev(after)];
  return s.holds(address) ? &s : nullptr;
}

const Section* Image::section_named(std::string_view wanted) const {
  for (const Section& s : sections)
    if (s.name == wanted) return &s;
  return nullptr;
}

}  // namespace trapline::scan
