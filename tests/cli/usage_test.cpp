// Whatever the user gets wrong: one clear line on standard error that names the thing, and the documented exit code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

Finished trapline(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), TRAPLINE_EXECUTABLE);
  Process::Options options;
  options.merge_stderr = false;
  return run(arguments, {}, seconds{30}, options);
}

void expect_refusal(const std::vector<std::string>& arguments, int code, const std::string& words) {
  const Finished f = trapline(arguments);
  EXPECT_EQ(f.code, code) << f.errors;
  EXPECT_EQ(f.output, "");
  EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 1) << f.errors;
  EXPECT_THAT(f.errors, HasSubstr(words));
  EXPECT_TRUE(f.errors.starts_with("trapline: ")) << f.errors;
}

TEST(Usage, WrongOptions) {
  const TempFile kernel{multiboot(exits_with(0))};
  expect_refusal({}, 2,
                 "no command: give balloon, compare, completion, console, doctor, exec, fuzz, help, image, isa, kill, "
                 "logs, ps, run, scan, stop, version");
  expect_refusal({"fly"}, 2, "fly");
  expect_refusal({"run"}, 2, "--kernel");
  expect_refusal({"run", "--kernel", kernel.path(), "--nonsense"}, 2, "--nonsense");
  expect_refusal({"run", "--kernel", kernel.path(), "--memory", "lots"}, 2, "--memory lots");
  expect_refusal({"run", "--kernel", kernel.path(), "--memory", "8M"}, 2, "too little");
  expect_refusal({"run", "--kernel", kernel.path(), "--memory", "4096G"}, 2, "too much");
  expect_refusal({"run", "--kernel", kernel.path(), "--cpus", "0"}, 2, "--cpus 0");
  expect_refusal({"run", "--kernel", kernel.path(), "--cpus", "two"}, 2, "two");
  expect_refusal({"run", "--kernel", kernel.path(), "--engine", "warp"}, 2, "--engine warp: no such engine");
  expect_refusal({"run", "--kernel", kernel.path(), "--para", "hyperv"}, 2, "--para hyperv: no such interface");
  expect_refusal({"run", "--kernel", kernel.path(), "--trace", "everything"}, 2, "everything");
  expect_refusal({"run", "--kernel", kernel.path(), "--timeout", "-1"}, 2, "--timeout");
  expect_refusal({"run", "--kernel", kernel.path(), "--cpu-features", "+warp"}, 2, "warp");
}

TEST(Usage, WhatIsNoFirmware) {
  const TempFile odd{std::string(100'000, 'x')}, empty{""}, large{std::string(9 * 1024 * 1024, 'x')},
      bios{std::string(64 * 1024, '\xf4')};
  expect_refusal({"run", "--firmware", "/nowhere"}, 3,
                 "--firmware /nowhere: No such file or directory: check the path");
  expect_refusal({"run", "--firmware", odd.path()}, 3, "100000 bytes: a PC's ROM has a multiple of 64 KiB");
  expect_refusal({"run", "--firmware", empty.path()}, 3, "is empty");
  expect_refusal({"run", "--firmware", large.path()}, 3, "8 MiB at most");
  expect_refusal({"run", "--firmware", bios.path(), "--cdrom", "/nowhere"}, 3, "--cdrom /nowhere: No such file");
  expect_refusal({"run", "--firmware", bios.path(), "--kernel", bios.path()}, 2, "--firmware: --kernel ");
}

TEST(Usage, MisspeltWordsAreNamedWithWhatWasMeant) {
  const TempFile kernel{multiboot(exits_with(0))};
  expect_refusal({"rnu"}, 2, "rnu: no such command: did you mean run?");
  expect_refusal({"help", "rnu"}, 2, "did you mean run?");
  expect_refusal({"run", "--kernl", kernel.path()}, 2, "run: --kernl: no such option: did you mean --kernel?");
  expect_refusal({"run", "--mem=1G", kernel.path()}, 2, "did you mean --memory?");
  expect_refusal({"run", "-kernel", kernel.path()}, 2, "-kernel: no such option: did you mean --kernel?");
  expect_refusal({"run", kernel.path(), "--xyzzy"}, 2, "run: --xyzzy: no such option: see trapline help run");
  expect_refusal({"run", kernel.path(), "--memory"}, 2, "run: --memory: its value is missing: --memory SIZE");
  expect_refusal({"run", kernel.path(), "--cpus", "1", "--cpus", "2"}, 2, "run: --cpus: given twice");
  expect_refusal({"run", kernel.path(), "--disk", "/nonexistent/a", "--disk", "/nonexistent/b"}, 3,
                 "--disk /nonexistent/a: No such file");
  expect_refusal({"run", kernel.path(), "--net", "none", "--net", "bridge"}, 2, "--net bridge: give user");
  expect_refusal({"run", kernel.path(), "--cpus", "two"}, 2, "run: --cpus two: not a number");
  expect_refusal({"run", kernel.path(), "--timeout", "soon"}, 2, "run: --timeout soon: give seconds, 0 for none");
  expect_refusal({"run", kernel.path(), "--stats=yes"}, 2, "run: --stats: takes no value");
  expect_refusal({"run", kernel.path(), "another"}, 2, "run: another: one too many");
  expect_refusal({"run", kernel.path(), "--kernel", kernel.path()}, 2, "one too many");
  expect_refusal({"fuzz", "--engine", "warp"}, 2, "fuzz: --engine warp: no such engine: use ");
  expect_refusal({"doctor", "who"}, 2, "doctor: who: not expected");
  expect_refusal({"scan"}, 2, "scan: no file");
  expect_refusal({"--kernel", kernel.path()}, 2, "--kernel: no such option before a command");
  expect_refusal({"--verson"}, 2, "--verson: no such option before a command: did you mean --version?");
  expect_refusal({"version", "all"}, 2, "version: all: one too many");
  expect_refusal({"run", "--gdb", "gdb.sock", kernel.path()}, 2, "or the path of a socket: ./gdb.sock");
}

TEST(Usage, TheKernelNeedsNoOption) {
  const TempFile kernel{multiboot(exits_with(5))};
  EXPECT_EQ(trapline({"run", kernel.path()}).code, 11);
  EXPECT_EQ(trapline({"run", "--memory", "64M", kernel.path(), "--cpus", "2"}).code, 11);
  EXPECT_EQ(trapline({"run", "--", kernel.path()}).code, 11);
  EXPECT_EQ(trapline({"run", "--module", kernel.path(), kernel.path()}).code, 11);
  EXPECT_EQ(trapline({"run", "--module", kernel.path(), "--module", kernel.path(), kernel.path()}).code, 11);
}

TEST(Usage, SizesAsPeopleWriteThem) {
  const TempFile kernel{multiboot(exits_with(5))};
  for (const char* size : {"64", "64M", "64MB", "64MiB", "65536k", "0.25G", "1.5G", "0.5GiB"})
    EXPECT_EQ(trapline({"run", "--memory", size, kernel.path()}).code, 11) << size;
  expect_refusal({"run", "--memory", "64X", kernel.path()}, 2, "--memory 64X: not a size");
}

TEST(Usage, OptionsThatDoNothingSaySo) {
  const TempFile kernel{multiboot(exits_with(5))};
  for (const std::string option : {"--perf-map", "--dump=guest"}) {
    const Finished f = trapline({"run", "--engine", "interpret", option, kernel.path()});
    EXPECT_EQ(f.code, 11);
    EXPECT_THAT(f.errors,
                HasSubstr(option.substr(0, option.find('=')) + ": engine interpret translates nothing: no effect"));
  }
}

TEST(Usage, AGuestThatPrintsNothingGetsOneHint) {
  const TempFile silent{multiboot(loops_for_ever())}, talks{multiboot(prints("x", loops_for_ever()))};
  const TempFile like_linux{pvh(loops_for_ever())};
  const auto hint = [](const Finished& f) { return f.errors.find("printed nothing yet") != std::string::npos; };
  const auto names_linux = [](const Finished& f) { return f.errors.find("console=ttyS0") != std::string::npos; };
  const Finished f = trapline({"run", silent.path(), "--timeout", "6"});
  EXPECT_EQ(f.code, 5);
  EXPECT_TRUE(hint(f)) << f.errors;
  EXPECT_FALSE(names_linux(f)) << f.errors;  // Linux does not come by multiboot
  EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 2) << f.errors;
  EXPECT_TRUE(names_linux(trapline({"run", like_linux.path(), "--timeout", "6"})));
  EXPECT_FALSE(hint(trapline({"run", silent.path(), "--timeout", "6", "--append", "console=tty0"})));
  EXPECT_FALSE(hint(trapline({"run", talks.path(), "--timeout", "6"})));
}

TEST(Usage, WrongFiles) {
  const TempFile kernel{multiboot(exits_with(0))}, empty{""}, text{"this is no kernel\n"};
  expect_refusal({"run", "--kernel", "/nonexistent/vmlinuz"}, 3, "/nonexistent/vmlinuz");
  expect_refusal({"run", "--kernel", "/tmp"}, 3, "is a directory");
  expect_refusal({"run", "--kernel", empty.path()}, 3, "is empty");
  expect_refusal({"run", "--kernel", text.path()}, 3, text.path());
  expect_refusal({"run", "--kernel", kernel.path(), "--initrd", "/nonexistent/initrd"}, 3,
                 "--initrd /nonexistent/initrd");
  expect_refusal({"run", "--kernel", kernel.path(), "--module", "/nonexistent/m=args"}, 3, "--module /nonexistent/m");
  expect_refusal({"run", "--kernel", kernel.path(), "--system-map", "/nonexistent/map"}, 3, "--system-map");
  expect_refusal({"run", kernel.path(), "--system-map", "/dev/zero"}, 3, "--system-map /dev/zero: over 256 MiB");
  expect_refusal({"run", "--kernel", kernel.path(), "--trace", "boot", "--trace-file", "/nonexistent/t"}, 3,
                 "--trace-file /nonexistent/t");
  if (::geteuid() != 0) {
    ::chmod(kernel.path().c_str(), 0);
    expect_refusal({"run", "--kernel", kernel.path()}, 3, "Permission denied");
  }
}

TEST(Usage, TruncatedKernelsAreRefusedAtEveryLength) {
  const std::string whole = multiboot(exits_with(0));
  for (std::size_t n : {1u, 3u, 4u, 11u, 12u, 31u}) {
    const TempFile part{whole.substr(0, n)};
    expect_refusal({"run", "--kernel", part.path()}, 3, part.path());
  }
}

TEST(Usage, HelpAndVersion) {
  const Finished version = trapline({"--version"}), help = trapline({"--help"}), run_help = trapline({"run", "--help"});
  EXPECT_EQ(trapline({"version"}).output, version.output);
  EXPECT_EQ(trapline({"help"}).output, help.output);
  EXPECT_EQ(trapline({"help", "run"}).output, run_help.output);
  EXPECT_EQ(trapline({"--help", "run"}).output, run_help.output);
  EXPECT_EQ(trapline({"-h", "run"}).output, run_help.output);
  EXPECT_THAT(run_help.output, HasSubstr("0: never"));
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.output, HasSubstr("trapline "));
  EXPECT_EQ(help.code, 0);
  for (const char* command : {"\n  doctor ", "\n  help ", "\n  version "}) EXPECT_THAT(help.output, HasSubstr(command));
  EXPECT_EQ(run_help.code, 0);
  for (const char* option :
       {"--kernel", "--initrd",       "--module", "--append",   "--memory",    "--cpus",  "--engine",
        "--para",   "--cpu-features", "--clock",  "--timeout",  "--no-reboot", "--trace", "--trace-file",
        "--stats",  "--system-map",   "--gdb",    "--gdb-wait", "--disk",      "--rng",   "--net"})
    EXPECT_THAT(run_help.output, HasSubstr(option));
}

TEST(Usage, DoctorNamesTheEngine) {
  const Finished f = trapline({"doctor"});
  EXPECT_EQ(f.code, 0) << f.output;
  EXPECT_THAT(f.output, Not(HasSubstr(" \n")));
  EXPECT_THAT(f.output, Not(HasSubstr(" 1 cycles")));
  for (const char* line : {"fsgsbase", "umip", "cpuid faulting", "seccomp", "user namespaces", "core's namespaces",
                           "memfd", "max_map_count", "auto takes "})
    EXPECT_THAT(f.output, HasSubstr(line));
}

}  // namespace
}  // namespace trapline::test
