// The core process, from exec to end. Started by the monitor only.
#pragma once

namespace trapline::core {

inline constexpr const char* kCoreCommand = "__core";  // trapline __core CHANNEL_FD VCPUS MONITOR_PID

int core_main(int argc, char** argv);

}  // namespace trapline::core
