// The core process, from exec to end. Started by the monitor only.
#pragma once

namespace trapline::core {

inline constexpr const char* kCoreCommand = "__core";  // trapline __core CHANNEL_FD VCPUS OWN_MOUNTS

// Its exit status when it cannot even report: no address space for the channel.
inline constexpr int kCannotStart = 126;

int core_main(int argc, char** argv);

}  // namespace trapline::core
