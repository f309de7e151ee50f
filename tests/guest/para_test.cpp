// Linux finds what --para kvm offers, uses it, and says so; and boots without.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

Finished boot(const std::string& para, const std::string& append) {
  const std::string kernel = fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE);
  const std::string initrd = fmt::format("{}/initrd-amd64", GUEST_CACHE);
  Process::Options options;
  options.merge_stderr = false;
  return run({TRAPLINE_EXECUTABLE, "run", "--kernel", kernel, "--initrd", initrd, "--cpus", "2", "--para", para,
              "--timeout", "200", "--trace", "clock", "--append", "console=ttyS0 trapline.run=batch " + append},
             {}, seconds{220}, options);
}

std::size_t count(const std::string& text, const std::string& words) {
  std::size_t n = 0;
  for (auto at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) n++;
  return n;
}

TEST(ParaKvm, LinuxUsesEachBit) {
  const Finished f = boot("kvm", "");
  EXPECT_EQ(f.code, 0) << f.output << f.errors;
  for (const char* line :
       {"Hypervisor detected: KVM", "kvm-clock: Using msrs 4b564d01 and 4b564d00", "kvm-guest: PV spinlocks enabled",
        "kvm-guest: KVM setup pv remote TLB flush", "clocksource: kvm-clock"})
    EXPECT_THAT(f.output, HasSubstr(line));
  EXPECT_GE(count(f.errors, "steal time at"), 2u) << "each vCPU";
}

TEST(ParaKvm, LinuxMayLeaveItAlone) {
  const Finished f = boot("kvm", "no-kvmclock nopvspin");
  EXPECT_EQ(f.code, 0) << f.output << f.errors;
  EXPECT_THAT(f.output, Not(HasSubstr("kvm-clock: Using msrs")));
  EXPECT_THAT(f.output, Not(HasSubstr("PV spinlocks enabled")));
}

TEST(ParaKvm, NoneIsNoHypervisorOfKvms) {
  const Finished f = boot("none", "");
  EXPECT_EQ(f.code, 0) << f.output << f.errors;
  EXPECT_THAT(f.output, Not(HasSubstr("kvm")));
}

}  // namespace
}  // namespace trapline::test
