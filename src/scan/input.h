// A file's bytes, read once.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "scan/limits.h"

namespace trapline::scan {

// Error: the reason, without the file's name. FIFOs and devices are refused, so nothing waits for a writer.
Result<std::vector<u8>, std::string> read_file(const std::string& path, const Limits& limits);

}  // namespace trapline::scan
