// --firmware, --console, --cdrom, --boot-menu.
#pragma once

#include <string>

#include "cli/options.h"

namespace CLI {
class App;
}

namespace trapline::cli {

void add_firmware_options(CLI::App& run, RunOptions& options);

// What is wrong, or nothing. Names become files; what only a kernel takes is refused.
std::string check_firmware(const RunOptions& options, machine::Config& config);

}  // namespace trapline::cli
