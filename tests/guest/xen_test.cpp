// Freestanding Xen PV guests (xen/*.c).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct Asked {
  const char* engine;
  unsigned seed;
};
void PrintTo(const Asked& a, std::ostream* out) { *out << a.engine << " seed " << a.seed; }

class XenHypercalls : public testing::TestWithParam<Asked> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

// A guest that asks for anything is told errors, or it dies of what it has done to itself, with a report. More of it:
// trapline run --para xen --kernel hypercall_fuzz.elf --memory 64M --append "SEED COUNT"
TEST_P(XenHypercalls, AreAnsweredOrEndTheirGuest) {
  constexpr int kGuestCrash = 4;
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--engine", GetParam().engine, "--para", "xen", "--kernel",
              XEN_GUESTS "/hypercall_fuzz.elf", "--memory", "64M", "--append", fmt::format("{} 1000", GetParam().seed),
              "--no-reboot", "--timeout", "120"}};
  const int code = vm.wait_exit(seconds{150});
  if (code == 0) {
    EXPECT_NE(vm.output().find("hypercalls: 3e8"), std::string::npos) << vm.output();
    EXPECT_NE(vm.output().find("PASS"), std::string::npos) << vm.output();
  } else {
    EXPECT_EQ(code, kGuestCrash) << vm.output();
    EXPECT_NE(vm.output().find("vcpu 0 in 64-bit mode, ring 3"), std::string::npos) << vm.output();
  }
}

std::vector<Asked> all() {
  std::vector<Asked> list;
  for (const char* engine : kEngines)
    for (unsigned seed = 1; seed <= 3; seed++) list.push_back({engine, seed});
  return list;
}

INSTANTIATE_TEST_SUITE_P(Seeds, XenHypercalls, testing::ValuesIn(all()),
                         [](const auto& i) { return fmt::format("{}_{}", i.param.engine, i.param.seed); });

}  // namespace
}  // namespace trapline::test
