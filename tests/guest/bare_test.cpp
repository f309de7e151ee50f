// Freestanding guests (bare/*.asm): each checks itself against the manual and says PASS, exit code 33 (see
// bare/common.inc).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct Bare {
  const char* guest;
  unsigned cpus;
  const char* engine;
};

std::vector<std::string> command(const Bare& b) {
  return {TRAPLINE_EXECUTABLE,
          "run",
          "--engine",
          b.engine,
          "--kernel",
          fmt::format("{}/{}.elf", BARE_GUESTS, b.guest),
          "--memory",
          "64M",
          "--cpus",
          std::to_string(b.cpus),
          "--timeout",
          "60"};
}

class BareGuest : public testing::TestWithParam<Bare> {};

TEST_P(BareGuest, FindsTheMachineAsTheManualSays) {
  const Finished vm = run(command(GetParam()), {}, seconds{90});
  EXPECT_EQ(vm.code, 33) << vm.output;
  EXPECT_NE(vm.output.find("PASS"), std::string::npos) << vm.output;
  EXPECT_EQ(vm.output.find("FAIL"), std::string::npos) << vm.output;
  if (std::string_view{GetParam().guest} == "smp") {
    EXPECT_NE(vm.output.find(fmt::format("cpus {:016x}", GetParam().cpus)), std::string::npos) << vm.output;
  }
}

std::string name_of(const testing::TestParamInfo<Bare>& info) {
  return fmt::format("{}_{}cpu_{}", info.param.guest, info.param.cpus, info.param.engine);
}

INSTANTIATE_TEST_SUITE_P(Guests, BareGuest,
                         testing::Values(Bare{"modes", 1, "interpret"}, Bare{"faults32", 1, "interpret"},
                                         Bare{"faults64", 1, "interpret"}, Bare{"paging64", 1, "interpret"},
                                         Bare{"segments", 1, "interpret"}, Bare{"tasks", 1, "interpret"},
                                         Bare{"v86", 1, "interpret"}, Bare{"syscall64", 1, "interpret"},
                                         Bare{"debug", 1, "interpret"}, Bare{"interrupts", 1, "interpret"},
                                         Bare{"strings", 1, "interpret"}, Bare{"smc", 1, "interpret"},
                                         Bare{"clock", 1, "interpret"}, Bare{"smp", 1, "interpret"},
                                         Bare{"smp", 2, "interpret"}, Bare{"smp", 4, "interpret"}),
                         name_of);

class BareEngine : public testing::TestWithParam<const char*> {};

TEST_P(BareEngine, ReportsATripleFault) {
  const Finished vm = run(command({"triple", 1, GetParam()}), {}, seconds{90});
  EXPECT_EQ(vm.code, 4) << vm.output;
  EXPECT_NE(vm.output.find("double fault taken"), std::string::npos) << vm.output;
  EXPECT_NE(vm.output.find("000000007a11c0de"), std::string::npos) << vm.output;  // EAX
  EXPECT_NE(vm.output.find("00000000600df00d"), std::string::npos) << vm.output;  // EDI
  EXPECT_NE(vm.output.find("ud2"), std::string::npos) << vm.output;
}

TEST_P(BareEngine, LetsTheGuestChooseTheExitCode) {
  for (const unsigned value : {0u, 1u, 5u, 127u}) {
    auto argv = command({"exitcode", 1, GetParam()});
    argv.insert(argv.end(), {"--append", fmt::format("quiet exit={}", value)});
    const Finished vm = run(argv, {}, seconds{90});
    EXPECT_EQ(vm.code, static_cast<int>(value << 1 | 1)) << vm.output;
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, BareEngine, testing::Values("interpret"),
                         [](const testing::TestParamInfo<const char*>& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::test
