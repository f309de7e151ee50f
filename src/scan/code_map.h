// What each byte of the code sections was found to be.
#pragma once

#include <span>
#include <vector>

#include "scan/image.h"

namespace trapline::scan {

// How sure it is that execution gets to an instruction. Documented in docs/scan.md.
enum class Confidence : u8 {
  none,
  speculative,  // a linear sweep over what nothing leads to
  likely,       // reached from an address that something stores or computes, or inside a known function
  certain,      // reached from an entry point, symbol, unwind entry or patch table by direct flow
};
const char* name_of(Confidence confidence);

class CodeMap {
 public:
  enum Mark : u8 {
    confidence_mask = 3,  // of the instruction that starts here
    start = 4,
    inside = 8,     // a later byte of an instruction
    padding = 16,   // NOPs, INT3s and zeros between functions
    overlaps = 32,  // starts inside of another instruction
    data = 64,      // does not decode, or only into known code
  };
  struct Area {
    const Section* section;
    std::vector<u8> marks;
    bool holds(u64 a) const { return section->holds(a); }
    u8& mark(u64 a) { return marks[a - section->address]; }
    u8 mark(u64 a) const { return marks[a - section->address]; }
    Bytes from(u64 a) const { return section->bytes.subspan(a - section->address); }
  };

  explicit CodeMap(const Image& image) {
    for (const Section& s : image.sections)
      if (s.code) areas_.push_back({&s, std::vector<u8>(s.bytes.size())});
  }

  Area* find(u64 address) {
    if (last_ < areas_.size() && areas_[last_].holds(address)) return &areas_[last_];
    for (std::size_t low = 0, high = areas_.size(); low < high;) {
      const std::size_t middle = (low + high) / 2;
      if (areas_[middle].holds(address)) return &areas_[last_ = middle];
      if (areas_[middle].section->address > address)
        high = middle;
      else
        low = middle + 1;
    }
    return nullptr;
  }
  bool is_start(u64 address) {
    const Area* a = find(address);
    return a && a->mark(address) & start;
  }
  Confidence confidence(u64 address) {
    const Area* a = find(address);
    return a ? static_cast<Confidence>(a->mark(address) & confidence_mask) : Confidence::none;
  }
  std::span<Area> areas() { return areas_; }
  std::span<const Area> areas() const { return areas_; }

 private:
  std::vector<Area> areas_;  // by address
  std::size_t last_ = 0;
};

}  // namespace trapline::scan
