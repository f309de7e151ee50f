// The ELF image inside a bzImage. A guest would unpack it itself, which takes some three seconds of its time; here it
// takes less than one, and none the next time: it is kept in the user's cache.
#pragma once

#include <string>

#include "base/result.h"
#include "base/types.h"

namespace trapline::exec {

// A descriptor of the image, or of the file itself where its kernel cannot be started so (no PVH entry), or cannot be
// unpacked. The caller closes it. An error is "PATH: why".
Result<int, std::string> open_plain_kernel(const std::string& path);

}  // namespace trapline::exec
