// What came of a comparison: as a table for a terminal, as JSON, as a page. docs/guide/compare.md says what each number
// is.
#pragma once

#include <string>
#include <string_view>

#include "compare/comparison.h"

namespace trapline::compare {

// What was compared, and where.
struct Setting {
  std::string guest;    // in words
  std::string version;  // Trapline's
  std::string host;     // CPU and kernel
  u32 cpus = 1;
  u64 memory = 0;
  u32 rounds = 3;
};

// The CPU's name and the kernel's release.
std::string host_in_words();

std::string text_of(const Comparison& c, const Setting& s);
std::string json_of(const Comparison& c, const Setting& s);
std::string page_of(const Comparison& c, const Setting& s);

}  // namespace trapline::compare
