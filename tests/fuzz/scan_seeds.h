// Seed inputs of the scanner's fuzzers.
#pragma once

#include <filesystem>

namespace trapline::fuzz {

void write_scan_seeds(const std::filesystem::path& root);

}  // namespace trapline::fuzz
