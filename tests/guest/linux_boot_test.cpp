// Debian's stock kernels, unmodified: to /init, a line of input, work in user space, power-off.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct Boot {
  const char* flavour;
  const char* arch;
  unsigned cpus;
  const char* engine;
  const char* debug = "";  // TRAPLINE_DEBUG
  const char* para = "kvm";
  bool xen() const { return std::string_view{para} == "xen"; }
};

void PrintTo(const Boot& b, std::ostream* out) {
  *out << b.flavour << ' ' << b.cpus << ' ' << b.engine << ' ' << b.debug << ' ' << b.para;
}

std::vector<std::string> command(const Boot& b, const std::string& append) {
  return {"env",
          fmt::format("TRAPLINE_DEBUG={}", b.debug),
          TRAPLINE_EXECUTABLE,
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
          "--para",
          b.para,
          "--append",
          (b.xen() ? "console=hvc0 " : "console=ttyS0 ") + append};
}

class LinuxBoot : public testing::TestWithParam<Boot> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

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
  // It has found XSAVE, under another hypervisor's interface too, and with it AVX where the host has it.
  EXPECT_NE(out.find("x86/fpu: Enabled xstate features"), std::string::npos) << out;
  EXPECT_EQ(out.find("guest-test: kernel complaint"), std::string::npos) << out;
}

std::string name_of(const testing::TestParamInfo<Boot>& info) {
  std::string name = fmt::format("{}_{}cpu_{}{}{}", info.param.flavour, info.param.cpus, info.param.engine,
                                 info.param.debug, info.param.xen() ? "_xen" : "");
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

std::vector<Boot> boots() {
  std::vector<Boot> all;
  for (const char* engine : kEngines) {
    for (const char* flavour : {"cloud-amd64", "amd64", "rt-amd64"})
      for (const unsigned cpus : {1u, 2u}) all.push_back({flavour, "amd64", cpus, engine});
    for (const char* flavour : {"686-pae", "686"})
      for (const unsigned cpus : {1u, 2u}) all.push_back({flavour, "i386", cpus, engine});
    all.push_back({"cloud-amd64", "amd64", 4, engine});
    for (const char* flavour : {"cloud-amd64", "amd64", "rt-amd64"})
      all.push_back({flavour, "amd64", 1, engine, "", "xen"});
    for (const unsigned cpus : {2u, 4u}) all.push_back({"cloud-amd64", "amd64", cpus, engine, "", "xen"});
  }
  // User code in cages from its first instruction on.
  for (const unsigned cpus : {1u, 2u, 4u}) all.push_back({"cloud-amd64", "amd64", cpus, "patch", "direct"});
  all.push_back({"amd64", "amd64", 1, "patch", "direct"});
  return all;
}

// An idle guest's time jumps from timer to timer, and nothing that it does touches a device.
TEST(LinuxByInstructions, TakesInputThatComesLate) {
  std::vector<std::string> argv = command({"cloud-amd64", "amd64", 2, "auto"}, "trapline.run=test");
  argv.insert(argv.end(), {"--clock", "instructions"});
  Process vm{argv};
  ASSERT_TRUE(vm.wait_for("guest-test: ready for input", seconds{240})) << vm.output();
  std::this_thread::sleep_for(seconds{2});
  vm.send("hello from outside\n");
  EXPECT_TRUE(vm.wait_for("guest-test: got [hello from outside]", seconds{60})) << vm.output();
  EXPECT_EQ(vm.wait_exit(seconds{240}), 0) << vm.output();
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinuxBoot, testing::ValuesIn(boots()), name_of);

}  // namespace
}  // namespace trapline::test
