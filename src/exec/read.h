// Whole files of the host.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::exec {

// An error is "PATH: why".
Result<std::vector<u8>, std::string> read_file(const std::string& path, std::size_t most = 256 * MiB);

}  // namespace trapline::exec
