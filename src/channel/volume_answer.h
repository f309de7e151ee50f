// What the process that reads a disk image says to the monitor: four lines, kernel, initrd, root and its number; or one that begins
// with kVolumeError. The monitor believes no more of it than that it is text.
#pragma once

#include <cstddef>

namespace trapline::channel {

inline constexpr const char* kVolumeCommand = "__volume";
inline constexpr const char* kVolumeError = "!";
inline constexpr std::size_t kMostVolumeAnswer = 4096;

}  // namespace trapline::channel
