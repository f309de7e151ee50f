// The command line, as a configuration that is complete and within limits.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "machine/config.h"

namespace CLI {
class App;
}

namespace trapline::cli {

inline constexpr u64 kLeastMemory = 64 * MiB, kMostMemory = 256 * GiB;
inline constexpr const char *kMemory = "512M", *kImageMemory = "1G";  // unless said
inline constexpr u32 kMostCpus = 64;
inline constexpr std::size_t kLongestTag = 31;  // devices/virtio/ninep.h
inline constexpr std::size_t kMostShares = 16;

// "512M", "4G", "1.5G", "65536K", "512MB", "2GiB", "1T": powers of 1024 throughout, whole pages of a fraction. A number
// alone is MiB. Nothing on anything else.
std::optional<u64> parse_size(const std::string& text);

// What CLI11 stores before it is checked.
struct RunOptions {
  machine::Config config;
  std::string memory;                 // empty: kMemory
  std::string patch_with = "inline";  // or traps
  std::string engine = "auto", para = "kvm", clock = "real", console = "serial", trace, dump, gdb;
  std::vector<std::string> modules, disks, networks, shares;
  bool detach = false;       // the VM lives on without this terminal
  std::string cloud_init;    // a file of user data; empty: none
  bool snapshot = false;     // of the image that is run, not of those that --disk names
  std::string network_seed;  // what MAC addresses follow from; empty: the kernel's path
  std::string vsock, balloon, virtio_transport = "pci";
};

void add_run_options(CLI::App& command, RunOptions& options);

// Checks and completes options.config. Error: one line naming the option and the remedy.
Result<machine::Config, std::string> check(const RunOptions& options);

// The paravirtual interfaces that this version offers, but for `auto`.
struct ParaOffer {
  std::string_view name;  // as --para spells it
  machine::ParaChoice value;
};
std::vector<ParaOffer> offered_paras();

// What was asked for and will do nothing: one line each.
std::vector<std::string> notes(const RunOptions& options, const machine::Config& config);

}  // namespace trapline::cli
