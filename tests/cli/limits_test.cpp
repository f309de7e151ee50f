// What the host does not give (descriptors, threads, memory, a standard error): the documented code and one line, never
// a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr int kGuests = 11;  // the guest's own code
constexpr int kRefused = 7;
constexpr int kLoader = 127;  // ld.so's: the monitor itself was not to be loaded

std::vector<std::string> command(const TempFile& kernel) {
  ::chmod(kernel.path().c_str(), 0644);
  return {TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel.path()};
}

Finished separately(std::vector<std::string> before, const std::vector<std::string>& argv) {
  before.insert(before.end(), argv.begin(), argv.end());
  Process::Options options;
  options.merge_stderr = false;
  return run(before, {}, seconds{60}, options);
}

// But for the one that says what auto takes under such limits.
std::size_t lines(const std::string& text) {
  const auto all = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  return all - (text.starts_with("trapline: --engine auto takes ") ? 1 : 0);
}

// It runs, or is refused in one line that begins with our name. Whether it ran.
bool runs_or_is_refused(const Finished& f, const std::string& limit) {
  if (f.code == kGuests || f.code == kLoader) return f.code == kGuests;
  EXPECT_EQ(f.code, kRefused) << limit << ": " << f.errors;
  EXPECT_EQ(lines(f.errors), 1u) << limit << ": " << f.errors;
  EXPECT_TRUE(f.errors.starts_with("trapline: ")) << limit << ": " << f.errors;
  EXPECT_THAT(f.errors, testing::Not(HasSubstr("internal error"))) << limit;
  return false;
}

TEST(Limits, Descriptors) {
  const TempFile kernel{multiboot(exits_with(5))};
  bool ran = false;
  for (int n = 4; n <= 32; n++) {
    const std::string limit = "--nofile=" + std::to_string(n);
    const Finished f = separately({"prlimit", limit}, command(kernel));
    ran = runs_or_is_refused(f, limit);
    if (f.code == kRefused) {
      EXPECT_THAT(f.errors, HasSubstr("ulimit -n")) << limit;
    }
  }
  EXPECT_TRUE(ran) << "32 are enough";
}

TEST(Limits, ThreadsAndProcesses) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes a user that runs nothing else";
  const TempFile kernel{multiboot(exits_with(5))};
  constexpr int kEnough = 12, kTries = 20;
  bool ran = false;
  for (int n = 1, tries = 0; n <= kEnough && tries < kTries; n++) {
    const std::string limit = "--nproc=" + std::to_string(n);
    const Finished f = separately(
        {"setpriv", "--reuid", "61817", "--regid", "61817", "--clear-groups", "prlimit", limit}, command(kernel));
    if (f.errors.find("Permission denied") != std::string::npos || f.code == 126)
      GTEST_SKIP() << "the executable lies where others cannot read it";
    ran = runs_or_is_refused(f, limit);
    if (n < kEnough || ran) continue;
    std::this_thread::sleep_for(
        std::chrono::milliseconds{50});  // processes of the run before count until they are gone
    n--, tries++;
  }
  EXPECT_TRUE(ran) << kEnough << " are enough";
}

TEST(Limits, Memory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer reserves more than any of these";
#endif
  const TempFile kernel{multiboot(exits_with(5))};
  // Less does not hold the executable and its loader.
  for (const auto& [what, least] : {std::pair{"--data=", 8}, std::pair{"--as=", 16}})
    for (int mib = least; mib <= 4096; mib *= 2)
      for (const int kib : {0, mib * 512}) {
        const std::string limit =
            what + std::to_string((1024ull * static_cast<unsigned>(mib) + static_cast<unsigned>(kib)) * 1024);
        runs_or_is_refused(separately({"prlimit", limit}, command(kernel)), limit);
      }
}

// Where the executable and its libraries just fit, and the first things that they do do not.
TEST(Limits, AddressSpaceThatEndsAtTheStart) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer reserves more than any of these";
#endif
  const TempFile kernel{multiboot(exits_with(5))};
  for (unsigned kib = 15 * 1024; kib < 18 * 1024; kib += 32) {
    const std::string limit = "--as=" + std::to_string(kib * 1024ull);
    const Finished f = separately({"prlimit", limit}, command(kernel));
    if (f.code == 127) continue;  // the loader's words
    runs_or_is_refused(f, limit);
  }
}

// Each step of setting up a VM is the one that fails, at some size.
TEST(Limits, AddressSpaceThatEndsInTheMiddleOfSettingUp) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer reserves more than any of these";
#endif
  const TempFile kernel{multiboot(exits_with(5))};
  unsigned refused = 0;
  for (unsigned mib = 64; mib < 256; mib += mib < 128 ? 2 : 8) {
    const std::string limit = "--as=" + std::to_string(mib * (1ull << 20));
    const Finished f = separately({"prlimit", limit}, command(kernel));
    runs_or_is_refused(f, limit);
    if (f.code == kRefused) refused++;
  }
  EXPECT_GT(refused, 5u);
}

TEST(Limits, FilesOfNoSize) {
  const TempFile kernel{multiboot(exits_with(5))};
  const Finished f = separately({"prlimit", "--fsize=0"}, command(kernel));
  EXPECT_EQ(f.code, kRefused) << f.errors;
  EXPECT_THAT(f.errors, HasSubstr("ulimit -n, -f"));
}

TEST(Limits, SignalsThatMayBeQueued) {
  const TempFile kernel{multiboot(exits_with(5))};
  runs_or_is_refused(separately({"prlimit", "--sigpending=0"}, command(kernel)), "--sigpending=0");
}

int code_in_shell(const std::string& line) { return run({"/bin/sh", "-c", line}).code; }

TEST(Limits, AStandardErrorThatLeadsNowhereChangesNoCode) {
  const TempFile kernel{multiboot(exits_with(5))}, crash{multiboot(triple_faults())}, none{""};
  const std::string trapline = TRAPLINE_EXECUTABLE, base = trapline + " run --memory 64M --kernel ";
  for (const char* where : {" 2>/dev/full", " 2>&-"}) {
    EXPECT_EQ(code_in_shell(base + kernel.path() + where), kGuests) << where;
    EXPECT_EQ(code_in_shell(base + kernel.path() + " --stats" + where), kGuests) << where;
    EXPECT_EQ(code_in_shell(base + kernel.path() + " --trace all" + where), kGuests) << where;
    EXPECT_EQ(code_in_shell(base + crash.path() + where), 4) << where;
    EXPECT_EQ(code_in_shell(base + none.path() + where), 3) << where;
    EXPECT_EQ(code_in_shell(base + none.path() + " --nonsense" + where), 2) << where;
    EXPECT_EQ(code_in_shell(trapline + " isa nonsense" + where), 2) << where;
    EXPECT_EQ(code_in_shell(trapline + " scan /nonexistent" + where), 3) << where;
  }
}

TEST(Limits, WhatCannotBePrintedIsAFailure) {
  const std::string trapline = TRAPLINE_EXECUTABLE;
  for (const char* command : {"doctor", "help", "help run", "--help", "run --help", "version", "--version", "isa",
                              "isa popf", "scan /bin/true", "fuzz --count 100"}) {
    Process::Options options;
    options.merge_stderr = false;
    for (const char* where : {" >/dev/full", " >&-"}) {
      const Finished f = run({"/bin/sh", "-c", trapline + " " + command + where}, {}, seconds{60}, options);
      EXPECT_EQ(f.code, 9) << command << where << ": " << f.errors;
      EXPECT_EQ(lines(f.errors), 1u) << command << where << ": " << f.errors;
      EXPECT_THAT(f.errors, HasSubstr("standard output")) << command << where;
    }
  }
}

}  // namespace
}  // namespace trapline::test
