// run --cloud-init FILE: a seed for cloud-init's NoCloud source, as a small disk.
#pragma once

#include <string>

#include "cli/options.h"

namespace trapline::cli {

// Makes the seed of options.cloud_init, if there is one, and adds it as the last disk, which is only read. Its file has
// no name and goes with this process. Returns what is wrong: one line; or nothing.
std::string add_cloud_init(RunOptions& options);

}  // namespace trapline::cli
