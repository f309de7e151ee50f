// trapline compare, with guests of a few bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int kDiffers = 12;

Finished compare(std::vector<std::string> arguments) {
  std::vector<std::string> line{TRAPLINE_EXECUTABLE, "compare"};
  line.insert(line.end(), arguments.begin(), arguments.end());
  Process::Options options;
  options.merge_stderr = false;
  return run(line, {}, std::chrono::seconds{100}, options);
}

// 2000 times PUSHF, POPF and SMSW, in ring 0; then what `prints` prints, and an exit.
std::vector<unsigned char> critical_loop() {
  std::vector<unsigned char> code{0xbc, 0,    0,    0x20, 0,     // mov esp, 2 MiB
                                  0xb9, 0xd0, 0x07, 0,    0,     // mov ecx, 2000
                                  0x9c, 0x9d, 0x0f, 0x01, 0xe0,  // again: pushf; popf; smsw eax
                                  0x49, 0x75, 0xf8};             // dec ecx; jnz again
  const auto rest = prints("done\n", exits_with(5));
  code.insert(code.end(), rest.begin(), rest.end());
  return code;
}

// Prints a letter of the hypervisor's name: K where KVM's interface is offered.
std::vector<unsigned char> tells_interface() {
  std::vector<unsigned char> code{0xb8, 0,    0,    0,    0x40, 0x0f, 0xa2,  // mov eax, 40000000; cpuid
                                  0x66, 0xba, 0xf8, 0x03, 0x88, 0xd8,        // mov dx, 3f8; mov al, bl
                                  0xee};                                     // out dx, al
  const auto rest = prints("\n", exits_with(5));
  code.insert(code.end(), rest.begin(), rest.end());
  return code;
}

std::uint64_t executed(const json& technique, const std::string& instruction) {
  for (const json& row : technique["sensitive"])
    if (row["instruction"] == instruction && row["ring"] == 0) return row["executed"];
  return 0;
}

TEST(Compare, CountsEachExecutionUnderEveryTechnique) {
  const TempFile kernel{multiboot(critical_loop())};
  const Finished f = compare({"--kernel", kernel.path(), "--rounds", "1", "--memory", "64M", "--json"});
  ASSERT_EQ(f.code, 0) << f.errors;
  const json report = json::parse(f.output);
  EXPECT_TRUE(report["agree"]);
  EXPECT_GE(report["techniques"].size(), 2u);
  bool inline_or_called = false;
  for (const json& t : report["techniques"]) {
    SCOPED_TRACE(t.dump());
    if (t.contains("not_run")) {
      EXPECT_EQ(t["para"], "xen") << "a multiboot kernel is none of Xen's";
      continue;
    }
    EXPECT_EQ(t["exit_code"], 11);
    for (const char* instruction : {"pushf", "popf", "smsw"}) EXPECT_EQ(executed(t, instruction), 2000u) << instruction;
    EXPECT_GE(t["instructions"], 2000u * 5);
    for (const json& row : t["sensitive"])
      inline_or_called = inline_or_called || row["ways"].contains("called") || row["ways"].contains("inlined");
  }
  EXPECT_TRUE(inline_or_called || report["techniques"].size() == 2);
}

// Once it is hot, each of them is a fault of the host's; before, the interpreter's.
TEST(Compare, TellsTrapsFromWhatIsInlined) {
  const TempFile kernel{multiboot(critical_loop())};
  const Finished f = compare({"--kernel", kernel.path(), "--engines", "patch,patch/traps", "--para", "none", "--rounds",
                              "1", "--memory", "64M", "--json"});
  if (f.code == 2 && f.errors.find(": not here") != std::string::npos) GTEST_SKIP() << f.errors;
  ASSERT_EQ(f.code, 0) << f.errors;
  const json report = json::parse(f.output);
  EXPECT_TRUE(report["agree"]);
  ASSERT_EQ(report["techniques"].size(), 2u);
  for (const json& t : report["techniques"]) {
    SCOPED_TRACE(t.dump());
    const bool traps = t["engine"] == "patch/traps";
    for (const json& row : t["sensitive"]) {
      if (row["instruction"] != "popf") continue;
      EXPECT_EQ(row["executed"], 2000u);
      EXPECT_EQ(row["ways"].contains("trapped"), traps);
      if (traps) {
        EXPECT_GT(row["ways"]["trapped"], 1900u);
      }
    }
  }
}

TEST(Compare, NamesTheFirstLineThatDiffers) {
  const TempFile kernel{multiboot(tells_interface())};
  const Finished f = compare(
      {"--kernel", kernel.path(), "--engines", "interpret", "--para", "none,kvm", "--rounds", "1", "--memory", "64M"});
  EXPECT_EQ(f.code, kDiffers) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("interpret, kvm differs from interpret, none: line 1: "));
  EXPECT_THAT(f.output, HasSubstr("but 'K'"));
}

TEST(Compare, WritesAPageThatNeedsNothing) {
  const TempFile kernel{multiboot(critical_loop())}, page{""};
  const Finished f =
      compare({"--kernel", kernel.path(), "--engines", "interpret", "--memory", "64M", "--html", page.path()});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("PUSHF"));
  std::stringstream text;
  text << std::ifstream{page.path()}.rdbuf();
  for (const char* part : {"<svg", "PUSHF", "prefers-color-scheme", "What is measured", "</html>"})
    EXPECT_THAT(text.str(), HasSubstr(part));
  for (const char* part : {"http://", "https://", "<script", "url(", "src="})
    EXPECT_THAT(text.str(), testing::Not(HasSubstr(part)));
}

TEST(Compare, WrongOptionsHaveOneLine) {
  const TempFile kernel{multiboot(critical_loop())}, text{"this is no kernel\n"};
  const auto refused = [](std::vector<std::string> arguments, int code, const char* words) {
    const Finished f = compare(std::move(arguments));
    EXPECT_EQ(f.code, code) << f.errors;
    EXPECT_THAT(f.errors, HasSubstr(words));
    EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 1) << f.errors;
    EXPECT_EQ(f.output, "");
  };
  const std::string k = kernel.path();
  refused({"--kernel", k, "--rounds", "0"}, 2, "--rounds 0: give 1 to 1000");
  refused({"--kernel", k, "--engines", "interpret,warp"}, 2,
          "--engines interpret,warp: warp: not here: give some of interpret");
  refused({"--kernel", k, "--para", "hyperv"}, 2, "--para hyperv: hyperv: not here: give some of none,kvm");
  refused({"--kernel", k, "--memory", "1K"}, 2, "--memory 1K: too little");
  refused({"--kernel", k, "--cpus", "0"}, 2, "--cpus 0");
  refused({"--initrd", k}, 2, "--initrd: what is built in brings its own");
  refused({"--command", "true", "--initrd", k}, 2, "--initrd: --command brings its own");
  refused({"--kernel", "/nonexistent/vmlinuz"}, 3, "--kernel /nonexistent/vmlinuz: No such file");
  refused({"--kernel", text.path()}, 3, text.path().c_str());
  refused({"--kernel", k, "--html", "/nonexistent/page"}, 3, "--html /nonexistent/page: No such file");
}

}  // namespace
}  // namespace trapline::test
