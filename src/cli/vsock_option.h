// --vsock cid=N,path=PATH
#pragma once

#include <string>

#include "base/result.h"
#include "machine/config.h"

namespace trapline::cli {

// Error: one line that names the option and the remedy.
Result<machine::VsockConfig, std::string> parse_vsock(const std::string& text);

}  // namespace trapline::cli
