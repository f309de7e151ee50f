// Freestanding guests (bare/*.asm): each checks itself against the manual and says PASS, exit code 33 (see
// bare/common.inc).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct Bare {
  const char* guest;
  unsigned cpus;
  const char* engine;
  const char* way = "";  // of kWays
};

// How translated code is made, beside the usual way.
struct Way {
  const char* name;
  std::vector<std::string> environment;
  std::vector<std::string> options = {};
};
const Way kWays[] = {
    {"", {}},
    {"hot", {"TRAPLINE_HOT=1"}},  // everything is translated at its first execution
    {"traps", {"TRAPLINE_HOT=1"}, {"--patch-with", "traps"}},
    {"nogs", {"TRAPLINE_HOT=1", "TRAPLINE_DEBUG=nogs"}},
    {"nopext", {"TRAPLINE_HOT=1", "TRAPLINE_DEBUG=nogs,nopext"}},
};

std::vector<std::string> command(const Bare& b) {
  std::vector<std::string> line{"env"};
  const auto known =
      std::find_if(std::begin(kWays), std::end(kWays), [&](const Way& w) { return b.way == std::string_view{w.name}; });
  if (known != std::end(kWays))
    line.insert(line.end(), known->environment.begin(), known->environment.end());
  else  // without an optimization
    line.insert(line.end(), {"TRAPLINE_HOT=1", fmt::format("TRAPLINE_DEBUG={}", b.way)});
  const std::vector<std::string> run{TRAPLINE_EXECUTABLE,
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
  line.insert(line.end(), run.begin(), run.end());
  if (known != std::end(kWays)) line.insert(line.end(), known->options.begin(), known->options.end());
  return line;
}

void PrintTo(const Bare& b, std::ostream* out) { *out << b.guest << ' ' << b.cpus << ' ' << b.engine << ' ' << b.way; }

class BareGuest : public testing::TestWithParam<Bare> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

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
  std::string name = fmt::format("{}_{}cpu_{}{}", info.param.guest, info.param.cpus, info.param.engine, info.param.way);
  std::erase_if(name, [](char c) { return c == '-' || c == '='; });
  return name;
}

std::vector<Bare> guests() {
  std::vector<Bare> all;
  for (const char* engine : kEngines) {
    for (const char* guest : {"modes",
                              "faults32",
                              "faults64",
                              "paging64",
                              "segments",
                              "tasks",
                              "v86",
                              "syscall64",
                              "user64",
                              "debug",
                              "interrupts",
                              "strings",
                              "lookups",
                              "smc",
                              "moved",
                              "clock",
                              "uart",
                              "bios",
                              "nmi",
                              "smp",
                              "vendor64",
                              "amd_66_near_branch",
                              "amd_far_pointer_rexw",
                              "stackless"})
      all.push_back({guest, 1, engine});
    for (const unsigned cpus : {2u, 4u}) all.push_back({"smp", cpus, engine});
  }
  for (const char* guest : {"modes", "faults32", "faults64", "paging64", "segments", "tasks", "v86", "syscall64",
                            "user64", "debug", "interrupts", "strings", "lookups", "smc", "moved", "smp"})
    all.push_back({guest, 1, "translate", "hot"});
  for (const char* way :
       {"nolink", "nojumps", "nomove", "nosharing", "novector", "nox87", "noinline", "nothunks", "max-block=1"})
    for (const char* guest : {"lookups", "smc"}) all.push_back({guest, 1, "translate", way});
  for (const char* way : {"nogs", "nopext"})
    for (const char* guest : {"faults64", "paging64", "syscall64", "lookups", "smc", "moved"})
      all.push_back({guest, 1, "translate", way});
  for (const char* guest : {"faults64", "paging64", "syscall64", "user64", "debug", "smp"})
    all.push_back({guest, 1, "patch", "direct"});
  for (const char* guest : {"modes", "faults32", "faults64", "paging64", "segments", "tasks", "v86", "syscall64",
                            "user64", "debug", "interrupts", "strings", "smc", "moved", "nmi", "smp", "vendor64"})
    all.push_back({guest, 1, "patch", "traps"});
  all.push_back({"smp", 4, "patch", "traps"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Guests, BareGuest, testing::ValuesIn(guests()), name_of);

class BareEngine : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam()); }
};

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

INSTANTIATE_TEST_SUITE_P(Engines, BareEngine, testing::ValuesIn(kEngines),
                         [](const testing::TestParamInfo<const char*>& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::test
