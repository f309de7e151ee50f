// The litmus programs (litmus/): on this machine's CPUs, which is the oracle, and in a guest with 1, 2 and 4 vCPUs
// under every engine.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

void expect_clean(const std::string& out) {
  EXPECT_EQ(out.find("FORBIDDEN"), std::string::npos) << out;
  EXPECT_EQ(out.find("LITMUS hang"), std::string::npos) << out;
  EXPECT_EQ(out.find("LITMUS broken"), std::string::npos) << out;
  EXPECT_NE(out.find("0 forbidden"), std::string::npos) << out;
}

TEST(LitmusOnTheHost, ShowsNothingForbidden) {
  Process program{{LITMUS_PROGRAM, "trapline.litmus.seconds=4"}};
  EXPECT_EQ(program.wait_exit(seconds{120}), 0) << program.output();
  expect_clean(program.output());
}

struct Shape {
  const char* engine;
  unsigned cpus;
};

void PrintTo(const Shape& s, std::ostream* out) { *out << s.engine << ", " << s.cpus << " vCPUs"; }

class Litmus : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

TEST_P(Litmus, ShowsNothingForbidden) {
  const Shape& shape = GetParam();
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--engine", shape.engine, "--kernel",
              fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE), "--initrd", LITMUS_INITRD, "--cpus",
              std::to_string(shape.cpus), "--memory", "256M", "--timeout", "240", "--append",
              "console=ttyS0 quiet trapline.litmus.seconds=8"}};
  ASSERT_TRUE(vm.wait_for("LITMUS end:", seconds{240})) << vm.output();
  EXPECT_EQ(vm.wait_exit(seconds{30}), 0) << vm.output();
  expect_clean(vm.output());
  EXPECT_NE(vm.output().find(fmt::format(" tests on {} CPUs", shape.cpus)), std::string::npos) << vm.output();
  for (const char* test :
       {"SB:", "IRIW:", "cmpxchg16b:", "ring:", "breakpoint-patching:", "copy-on-write:", "32-bit-code:"})
    EXPECT_NE(vm.output().find(fmt::format("LITMUS {}", test)), std::string::npos) << test << "\n" << vm.output();
}

TEST(CodeInCages, DataInExecutableMemoryIsWhatItIs) {
  SKIP_UNLESS_OFFERED("patch");
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--engine", "patch", "--kernel",
              fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE), "--initrd", LITMUS_INITRD, "--memory", "256M",
              "--timeout", "120", "--append",
              "console=ttyS0 quiet trapline.litmus.seconds=4 trapline.litmus.only=unexecuted-data"}};
  EXPECT_EQ(vm.wait_exit(seconds{120}), 0) << vm.output();
  expect_clean(vm.output());
  EXPECT_NE(vm.output().find("unexecuted-data: reads"), std::string::npos) << vm.output();
}

// Each stop of a cage costs tens of microseconds: a compiler's stores are not to be one each.
TEST(CompilersInCages, FillAPageInFewStops) {
  SKIP_UNLESS_OFFERED("patch");
  Process::Options options;
  options.environment = {"TRAPLINE_DEBUG=direct"};
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--engine", "patch", "--kernel",
              fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE), "--initrd", LITMUS_INITRD, "--memory", "256M",
              "--timeout", "120", "--stats", "--append",
              "console=ttyS0 quiet trapline.litmus.seconds=2 trapline.litmus.only=compiler"},
             options};
  EXPECT_EQ(vm.wait_exit(seconds{120}), 0) << vm.output();
  expect_clean(vm.output());
  const auto number_behind = [&](const char* what) {
    const auto at = vm.output().find(what);
    return at == std::string::npos ? 0.0 : std::strtod(vm.output().c_str() + at + std::strlen(what), nullptr);
  };
  const double calls = number_behind("compiler: calls "), faults = number_behind("cages: page faults");
  EXPECT_GT(calls, 0) << vm.output();
  EXPECT_GT(faults, 0) << vm.output();
  // Six stores a function: that many faults if each was one.
  EXPECT_LT(faults, 2.5 * calls) << vm.output();
}

std::vector<Shape> all_shapes() {
  std::vector<Shape> shapes;
  for (const char* engine : kEngines)
    for (unsigned cpus : {1u, 2u, 4u}) shapes.push_back({engine, cpus});
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(Engines, Litmus, testing::ValuesIn(all_shapes()),
                         [](const testing::TestParamInfo<Shape>& shape) {
                           return fmt::format("{}_{}cpu", shape.param.engine, shape.param.cpus);
                         });

}  // namespace
}  // namespace trapline::test
