// Debian's stock kernels, unmodified: to /init, a line of input, work in user space, power-off.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct Boot {
  const char* flavour;
  const char* arch;
  unsigned cpus;
  const char* engine;
};

std::vector<std::string> command(const Boot& b, const std::string& append) {
  return {TRAPLINE_EXECUTABLE,
          "run",
          "--engine",
          b.engine,
          "--kernel",
          fmt::format("{}/kernels/{}/vmlinuz", GUEST_CACHE, b.flavour),
          "--initrd",
          fmt::format("{}/initrd-{}", GUEST_CACHE, b.arch),
          "--cpus",
          std::to_string(b.cpus),
          "--memory",
          "512M",
          "--timeout",
          "240",
          "--append",
          "console=ttyS0 " + append};
}

class LinuxBoot : public testing::TestWithParam<Boot> {};

TEST_P(LinuxBoot, RunsToInitTakesInputAndPowersOff) {
  Process vm{command(GetParam(), "trapline.run=test")};
  ASSERT_TRUE(vm.wait_for("guest-test: ready for input", seconds{240})) << vm.output();
  vm.send("hello from outside\n");
  EXPECT_TRUE(vm.wait_for("guest-test: end", seconds{120})) << vm.output();
  EXPECT_EQ(vm.wait_exit(seconds{30}), 0) << vm.output();

  const std::string& out = vm.output();
  EXPECT_NE(out.find("guest-test: got [hello from outside]"), std::string::npos) << out;
  EXPECT_NE(out.find(fmt::format("guest-test: cpus {}", GetParam().cpus)), std::string::npos) << out;
  EXPECT_NE(out.find("guest-test: sum e071f707df7bbeee2a6a1eb48011ddd0"), std::string::npos) << out;
  EXPECT_NE(out.find("guest-test: pipe trapline"), std::string::npos) << out;
  EXPECT_NE(out.find("guest-test: child slept"), std::string::npos) << out;
  EXPECT_NE(out.find("guest-test: float 3676.000061512"), std::string::npos) << out;
  for (unsigned i = 0; i < GetParam().cpus; i++)
    EXPECT_NE(out.find(fmt::format("guest-test: vcpu {} counted 2000", i)), std::string::npos) << out;
  EXPECT_EQ(out.find("guest-test: kernel complaint"), std::string::npos) << out;
}

std::string name_of(const testing::TestParamInfo<Boot>& info) {
  std::string name = fmt::format("{}_{}cpu_{}", info.param.flavour, info.param.cpus, info.param.engine);
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Kernels, LinuxBoot,
    testing::Values(Boot{"cloud-amd64", "amd64", 1, "interpret"}, Boot{"cloud-amd64", "amd64", 2, "interpret"},
                    Boot{"cloud-amd64", "amd64", 4, "interpret"}, Boot{"amd64", "amd64", 1, "interpret"},
                    Boot{"amd64", "amd64", 2, "interpret"}, Boot{"rt-amd64", "amd64", 1, "interpret"},
                    Boot{"rt-amd64", "amd64", 2, "interpret"}, Boot{"686-pae", "i386", 1, "interpret"},
                    Boot{"686-pae", "i386", 2, "interpret"}, Boot{"686", "i386", 1, "interpret"},
                    Boot{"686", "i386", 2, "interpret"}),
    name_of);

}  // namespace
}  // namespace trapline::test
