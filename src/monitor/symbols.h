// Names for guest addresses, from a System.map.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/addr.h"

namespace trapline::monitor {

class Symbols {
 public:
  // Lines "ffffffff81000000 T _text"; others are skipped.
  static Symbols parse(std::string_view text);
  bool empty() const { return entries_.empty(); }
  // "schedule+0x1c", or nothing when no symbol is near.
  std::string name(Gva address) const;

 private:
  struct Entry {
    Gva address;
    std::string name;
  };
  std::vector<Entry> entries_;  // sorted
};

// The core's report for human eyes: what is not printable becomes '?', @addresses get their names.
std::string present(std::string_view report, const Symbols& symbols);

}  // namespace trapline::monitor
