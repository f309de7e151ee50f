// Drivers that do all they must not, on the devices of a VM that runs (hostile_driver.c, hostile_device.c): the monitor
// goes on, the devices answer afterwards, and files that are read-only stay as they are.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "support/process.h"

namespace trapline::test {
namespace {

using testing::HasSubstr;

constexpr int kPass = 33;

struct Where {
  const char *transport, *clock;
};
void PrintTo(const Where& w, std::ostream* out) { *out << w.transport << ", clock " << w.clock; }

struct HostileDriver : testing::TestWithParam<Where> {
  std::filesystem::path folder;
  HostileDriver() {
    char name[] = "/tmp/trapline-hostile-XXXXXX";
    folder = ::mkdtemp(name);
    std::filesystem::create_directory(folder / "share");
    for (const char* file : {"written", "readonly", "share/file"})
      std::ofstream{folder / file} << std::string(1 << 20, 'x');
  }
  ~HostileDriver() override { std::filesystem::remove_all(folder); }
  std::string bytes(const char* file) const {
    std::ifstream in{folder / file, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
};

TEST_P(HostileDriver, EndsNothingButItsOwnRequests) {
  const std::string at = folder.string();
  const Finished vm = run({TRAPLINE_EXECUTABLE,
                           "run",
                           "--kernel",
                           HOSTILE_DRIVER,
                           "--memory",
                           "64M",
                           "--timeout",
                           "110",
                           "--virtio-transport",
                           GetParam().transport,
                           "--clock",
                           GetParam().clock,
                           "--disk",
                           at + "/written",
                           "--disk",
                           at + "/readonly,readonly",
                           "--rng",
                           "--balloon",
                           "8M",
                           "--share",
                           at + "/share,readonly"},
                          {}, std::chrono::seconds{115});
  EXPECT_EQ(vm.code, kPass) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr(".....PASS"));
  EXPECT_NE(bytes("written").substr(512, 512), std::string(512, 'x')) << "the disk does not write afterwards";
  EXPECT_EQ(bytes("readonly"), std::string(1 << 20, 'x'));
  EXPECT_EQ(bytes("share/file"), std::string(1 << 20, 'x'));
}

INSTANTIATE_TEST_SUITE_P(Places, HostileDriver,
                         testing::Values(Where{"mmio", "real"}, Where{"pci", "real"}, Where{"pci", "instructions"}),
                         [](const testing::TestParamInfo<Where>& i) {
                           return fmt::format("{}_{}", i.param.transport, i.param.clock);
                         });

}  // namespace
}  // namespace trapline::test
