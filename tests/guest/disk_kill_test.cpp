// A flush that the guest was told of outlives everybody: monitor, core or the server of a qcow2 image are killed at random
// moments of a guest that writes and flushes without end, and what it called flushed is there.
//
// TRAPLINE_KILLS says how often each is killed (`make stress`: 20 times five is a hundred).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "guest/disk/flush.h"
#include "support/process.h"
#include "support/process_table.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using u64 = unsigned long long;

enum class Victim { monitor, core, server };
struct Case {
  const char* format;
  Victim victim;
};
constexpr const char* kVictims[] = {"monitor", "core", "server"};
void PrintTo(const Case& c, std::ostream* out) { *out << c.format << '_' << kVictims[static_cast<int>(c.victim)]; }

pid_t child_named(pid_t parent, const std::string& word) {
  for (const pid_t pid : children_of(parent)) {
    std::ifstream in{fmt::format("/proc/{}/cmdline", pid)};
    const std::string line{std::istreambuf_iterator<char>{in}, {}};
    if (line.find(word) != std::string::npos) return pid;
  }
  return -1;
}

// The number after the last whole "flushed " line.
u64 last_flushed(const std::string& output) {
  const auto end = output.rfind('\n');
  const auto at = output.rfind("\nflushed ", end - 1);
  return end == std::string::npos || at == std::string::npos ? 0 : std::strtoull(&output[at + 9], nullptr, 10);
}

// The last record of each block, of those up to `last`.
std::map<u64, u64> expected_blocks(u64 last) {
  std::map<u64, u64> blocks;
  for (u64 n = 1; n <= last; n++) blocks[block_of(n)] = n;
  return blocks;
}

// What was not yet flushed may be there, in part or not at all; all that was must be.
std::string what_is_missing(const std::string& raw, u64 last) {
  std::ifstream in{raw, std::ios::binary};
  for (const auto& [block, n] : expected_blocks(last)) {
    std::array<u64, kRecordWords> words{};
    in.seekg(static_cast<std::streamoff>(block * sizeof words));
    in.read(reinterpret_cast<char*>(words.data()), sizeof words);
    for (const u64 word : words) {
      const bool newer = word > last && word <= last + 2 * kMostTogether && block_of(word) == block;
      if (word != n && !newer)
        return fmt::format("block {} has {} instead of {}, flushed up to {}", block, word, n, last);
    }
  }
  return {};
}

class DiskKill : public testing::TestWithParam<Case> {
 protected:
  std::string folder_ = "/tmp/trapline-kill-XXXXXX", programs_, image_;
  bool raw() const { return std::string{GetParam().format} == "raw"; }

  void SetUp() override {
    if (!raw() && run({"sh", "-c", "command -v qemu-nbd"}).code != 0)
      GTEST_SKIP() << "qemu-nbd is not installed (qemu-utils)";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    programs_ = folder_ + "/programs", image_ = folder_ + "/image";
    run({"mkdir", folder_ + "/root"});
    run({"cp", DISK_FLUSH, folder_ + "/root/flush"});
    ASSERT_EQ(run({"/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder_ + "/root", programs_, "8M"}).code, 0);
  }
  ~DiskKill() override { run({"rm", "-rf", folder_}); }

  void make_image() {
    const std::string size = std::to_string(kBlocks * sizeof(u64) * kRecordWords);
    run({"rm", "-f", image_});
    const Finished made =
        raw() ? run({"truncate", "-s", size, image_}) : run({"qemu-img", "create", "-q", "-f", "qcow2", image_, size});
    ASSERT_EQ(made.code, 0) << made.output;
  }

  // The guest's words until the victim is dead, and those who lived on it.
  std::string run_and_kill(std::mt19937_64& random) {
    const std::string kernel = fmt::format("{}/kernels/cloud-amd64", GUEST_CACHE);
    Process vm{
        {TRAPLINE_EXECUTABLE, "run", "--kernel", kernel + "/vmlinuz", "--initrd", kernel + "/initrd", "--memory",
         "128M", "--timeout", "240", "--disk", programs_ + ",readonly", "--disk",
         fmt::format("{},format={}", image_, GetParam().format), "--append",
         "console=ttyS0 trapline.run=program trapline.program=flush,/dev/vdb trapline.modules=virtio_pci,virtio_blk"}};
    EXPECT_TRUE(vm.wait_for("flushed ", seconds{120})) << vm.output();
    for (u64 some = random() % 100; some > 0; some--)
      if (!vm.wait_for("flushed ", seconds{60})) ADD_FAILURE() << vm.output();
    std::this_thread::sleep_for(std::chrono::microseconds{random() % 3000});
    const pid_t core = child_named(vm.pid(), "__core");
    const pid_t nbd = raw() ? -1 : child_named(vm.pid(), "qemu-nbd");
    const pid_t victim = GetParam().victim == Victim::monitor ? vm.pid()
                         : GetParam().victim == Victim::core  ? core
                                                              : nbd;
    EXPECT_GT(victim, 0) << vm.output();
    ::kill(victim, SIGKILL);
    if (GetParam().victim == Victim::server) {
      EXPECT_TRUE(vm.wait_for("the guest gets I/O errors from now on", seconds{60})) << vm.output();
      EXPECT_TRUE(vm.wait_for("I/O error", seconds{60})) << vm.output();
    }
    vm.wait_exit(seconds{60});
    EXPECT_TRUE(nbd < 0 || gone(nbd)) << "it outlives the VM";
    return vm.output();
  }
};

TEST_P(DiskKill, WhatWasFlushedIsThere) {
  const char* kills = std::getenv("TRAPLINE_KILLS");
  const u64 seed = std::random_device{}();
  std::mt19937_64 random{seed};
  for (int round = kills ? std::atoi(kills) : 1; round > 0; round--) {
    SCOPED_TRACE(fmt::format("seed {}, {} rounds to go", seed, round));
    make_image();
    const u64 last = last_flushed(run_and_kill(random));
    ASSERT_GT(last, 0u);
    std::string found = image_;
    if (!raw()) {
      // No repair: that it was not closed leaves clusters unused at most.
      const Finished check = run({"qemu-img", "check", "-f", "qcow2", image_});
      EXPECT_TRUE(check.code == 0 || check.code == 3) << check.output;
      found += ".raw";
      ASSERT_EQ(run({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", image_, found}).code, 0);
    }
    ASSERT_EQ(what_is_missing(found, last), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DiskKill,
                         testing::Values(Case{"raw", Victim::monitor}, Case{"raw", Victim::core},
                                         Case{"qcow2", Victim::monitor}, Case{"qcow2", Victim::core},
                                         Case{"qcow2", Victim::server}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace trapline::test
