// --clock instructions: a run depends on nothing outside it. Two of them give the same trace, byte for byte.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

struct TemporaryFile {
  TemporaryFile() { ::close(::mkstemp(path.data())); }
  ~TemporaryFile() { ::unlink(path.c_str()); }
  std::string read() const {
    std::ostringstream text;
    text << std::ifstream{path}.rdbuf();
    return std::move(text).str();
  }
  std::string path = "/tmp/trapline-trace-XXXXXX";
};

struct Traced {
  int code;
  std::string console, trace;
};

Traced run_traced(std::vector<std::string> guest, const std::string& areas) {
  const TemporaryFile file;
  std::vector<std::string> argv{TRAPLINE_EXECUTABLE, "run", "--clock",      "instructions", "--timeout", "240",
                                "--trace",           areas, "--trace-file", file.path};
  argv.insert(argv.end(), guest.begin(), guest.end());
  const Finished done = run(argv, {}, seconds{280});
  return {done.code, done.output, file.read()};
}

// The first line that differs, instead of megabytes.
std::string first_difference(const std::string& a, const std::string& b) {
  std::istringstream left{a}, right{b};
  std::string x, y;
  for (std::size_t line = 1;; line++) {
    const bool more_left = static_cast<bool>(std::getline(left, x)),
               more_right = static_cast<bool>(std::getline(right, y));
    if (!more_left && !more_right) return "none";
    if (x != y || more_left != more_right) return fmt::format("line {}: '{}' against '{}'", line, x, y);
  }
}

void expect_equal_runs(const std::vector<std::string>& guest, const std::string& areas, int code,
                       std::size_t least_bytes) {
  const Traced a = run_traced(guest, areas), b = run_traced(guest, areas);
  EXPECT_EQ(a.code, code) << a.console;
  EXPECT_EQ(b.code, code) << b.console;
  EXPECT_GT(a.trace.size(), least_bytes) << "the trace is too small to prove anything";
  EXPECT_TRUE(a.trace == b.trace) << first_difference(a.trace, b.trace);
  EXPECT_TRUE(a.console == b.console) << first_difference(a.console, b.console);
}

std::vector<std::string> linux_guest(const char* cpus) {
  return {"--kernel", fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE),
          "--initrd", fmt::format("{}/initrd-amd64", GUEST_CACHE),
          "--cpus",   cpus,
          "--append", "console=ttyS0 trapline.run=boot"};
}

TEST(Determinism, EveryInstructionOfAFreestandingGuest) {
  expect_equal_runs({"--kernel", fmt::format("{}/modes.elf", BARE_GUESTS), "--memory", "64M"}, "all", 33, 10'000);
}

TEST(Determinism, EveryExitOfALinuxBoot) {
  expect_equal_runs(linux_guest("1"), "exits,interrupts,exceptions,msr,clock,devices", 0, 1'000'000);
}

TEST(Determinism, EveryExitOfALinuxBootOnTwoVcpus) {
  expect_equal_runs(linux_guest("2"), "exits,interrupts,exceptions,msr,clock,devices", 0, 1'000'000);
}

}  // namespace
}  // namespace trapline::test
