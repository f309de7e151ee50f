// --disk FILE[,OPTION...]
#pragma once

#include <string>

#include "base/result.h"
#include "machine/config.h"

namespace trapline::cli {

// Error: one line that names the option and the remedy. A comma in a file's name is written twice.
Result<machine::DiskConfig, std::string> parse_disk(const std::string& text);

}  // namespace trapline::cli
