// The command line, as a configuration that is complete and within limits.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "machine/config.h"

namespace CLI {
class App;
}

namespace trapline::cli {

inline constexpr u64 kLeastMemory = 64 * MiB, kMostMemory = 256 * GiB;
inline constexpr u32 kMostCpus = 64;

// "512M", "4G", "65536K", "1T"; a number alone is MiB. Nothing on anything else.
std::optional<u64> parse_size(const std::string& text);

// What CLI11 stores before it is checked.
struct RunOptions {
  machine::Config config;
  std::string memory = "512M", engine = "auto", para = "kvm", clock = "real", trace, dump;
  std::vector<std::string> modules;
  u32 gdb_port = 0;
};

void add_run_options(CLI::App& command, RunOptions& options);

// Checks and completes options.config. Error: one line naming the option and the remedy.
Result<machine::Config, std::string> check(const RunOptions& options);

}  // namespace trapline::cli
