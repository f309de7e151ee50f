// --disk FILE[,OPTION...] | vhost-user=SOCKET
#pragma once

#include <string>

#include "base/result.h"
#include "machine/config.h"

namespace trapline::cli {

// Error: one line that names the option and the remedy. A comma in a file's name is written twice.
Result<machine::DiskConfig, std::string> parse_disk(const std::string& text);

// A file's name as it stands there.
std::string with_commas_doubled(const std::string& path);

}  // namespace trapline::cli
