// `trapline run NAME`, `trapline run disk.img`, `--kernel image:PATH`: what they mean for the other options.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"

namespace trapline::cli {

// Where the word in the kernel's place is no file but an image's name, fills in what that image is booted with: kernel,
// initrd, disk, kernel command line, memory, network, name. Where it is a disk image, makes that the first disk, and
// reads kernel and initrd out of it. What the user has given stays. Returns lines for the user. Error: one line.
Result<std::vector<std::string>, std::string> resolve_image(RunOptions& options);

}  // namespace trapline::cli
