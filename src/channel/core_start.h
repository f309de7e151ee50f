// How the monitor starts the core: the executable itself, again, with other words.
#pragma once

namespace trapline::channel {

inline constexpr const char* kCoreCommand = "__core";  // trapline __core CHANNEL_FD VCPUS OWN_MOUNTS

// The core's exit status when it cannot even report: no address space for the channel.
inline constexpr int kCannotStart = 126;
// Ends of a core without a report: before there was a page for one, and by a fault within one.
inline constexpr int kNoReportYet = 124, kReportFailed = 125;

// What a terminal or a user sends to the whole process group is the monitor's to answer; the core ends when the monitor
// says so. Stays over exec; async-signal-safe.
void ignore_group_signals();

}  // namespace trapline::channel
