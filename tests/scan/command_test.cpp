// trapline scan and run --scan-report as users see them; the page in a browser.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "support/process.h"
#include "support/tiny_guest.h"
#include "unit/scan/elf_builder.h"

namespace trapline::test {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

Finished trapline(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), TRAPLINE_EXECUTABLE);
  Process::Options options;
  options.merge_stderr = false;
  return run(arguments, {}, seconds{60}, options);
}

std::string read(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::string text(const std::vector<u8>& bytes) { return {bytes.begin(), bytes.end()}; }

// popf; cli; ret in f, sidt in g whose name would end a script element; PUSHF in a MOV's immediate.
std::string program() {
  scan::testing::ElfBuilder elf;
  elf.sections = {{".text", 1, 6, 0x401000, {0x9d, 0xfa, 0xc3, 0x0f, 0x01, 0x08, 0xb8, 0x9c, 0x90, 0x90, 0x90, 0xc3}}};
  elf.symbols = {{"f", 0x401000, 3}, {"</script><b>g", 0x401003, 9}};
  elf.entry = 0x401000;
  return text(elf.build());
}

TEST(ScanCommand, TextNamesFunctionsAndClasses) {
  const TempFile file{program()};
  const Finished f = trapline({"scan", "--ring", "0", file.path()});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("critical 2   privileged 1"));
  EXPECT_THAT(f.output, HasSubstr("0000000000401000  9d"));
  EXPECT_THAT(f.output, HasSubstr("popfq"));
  EXPECT_THAT(f.output, HasSubstr("sidt [rax]"));
  EXPECT_THAT(f.output, Not(HasSubstr("\033")));
  const Finished critical = trapline({"scan", "--ring", "0", "--class", "critical", file.path()});
  EXPECT_THAT(critical.output, Not(HasSubstr("CLI")));
  const Finished summary = trapline({"scan", "--ring", "0", "--summary", file.path()});
  EXPECT_THAT(summary.output, Not(HasSubstr("sidt [rax]")));
}

TEST(ScanCommand, JsonHasTheSchema) {
  const TempFile file{program()};
  const Finished f = trapline({"scan", "--json", "--ring", "0", "--every-offset", file.path()});
  ASSERT_EQ(f.code, 0) << f.errors;
  const json j = json::parse(f.output);
  EXPECT_EQ(j["schema"], "trapline-scan/1");
  const json& image = j["images"][0];
  EXPECT_EQ(image["counts"]["critical"], 2);
  EXPECT_EQ(image["counts"]["privileged"], 1);
  EXPECT_EQ(image["ring"], "0");
  ASSERT_EQ(image["findings"].size(), 4u);
  const json& first = image["findings"][0];
  EXPECT_EQ(first["address"], "0x401000");
  EXPECT_EQ(first["function"], "f");
  EXPECT_EQ(first["instruction"], "popf");
  EXPECT_EQ(first["class"], "critical");
  EXPECT_EQ(first["confidence"], "certain");
  EXPECT_EQ(first["bytes"], "9d");
  EXPECT_EQ(image["findings"][3]["confidence"], "hidden");
  EXPECT_EQ(image["findings"][3]["instruction"], "pushf");
  u64 bytes = 0;
  for (const auto& [kind, n] : image["bytes"].items()) bytes += n.get<u64>();
  EXPECT_EQ(bytes, 12u);
}

// What SARIF 2.1.0 requires of the objects that are written (3.13, 3.14, 3.19, 3.27, 3.29, 3.30).
TEST(ScanCommand, SarifIsValid) {
  const TempFile file{program()};
  const Finished f = trapline({"scan", "--sarif", "--ring", "0", file.path()});
  ASSERT_EQ(f.code, 0) << f.errors;
  const json j = json::parse(f.output);
  EXPECT_EQ(j.at("version"), "2.1.0");
  ASSERT_TRUE(j.at("runs").is_array());
  const json& run = j["runs"][0];
  const json& rules = run.at("tool").at("driver").at("rules");
  EXPECT_TRUE(run["tool"]["driver"].at("name").is_string());
  std::set<std::string> ids;
  for (const json& rule : rules) {
    EXPECT_TRUE(ids.insert(rule.at("id")).second) << rule["id"];
    EXPECT_FALSE(rule.at("shortDescription").at("text").get<std::string>().empty());
  }
  ASSERT_EQ(run.at("results").size(), 3u);
  for (const json& r : run["results"]) {
    EXPECT_EQ(rules.at(r.at("ruleIndex").get<std::size_t>()).at("id"), r.at("ruleId"));
    EXPECT_TRUE(r.at("message").at("text").is_string());
    EXPECT_TRUE(std::set<std::string>({"none", "note", "warning", "error"}).contains(r.at("level")));
    ASSERT_TRUE(r.at("locations").is_array());
    const json& physical = r["locations"][0].at("physicalLocation");
    const auto index = physical.at("artifactLocation").at("index").get<std::size_t>();
    EXPECT_EQ(run.at("artifacts").at(index).at("location").at("uri"), physical["artifactLocation"]["uri"]);
    EXPECT_THAT(physical["artifactLocation"]["uri"].get<std::string>(), HasSubstr("file:///tmp/"));
    const auto at = physical.at("region").at("byteOffset").get<std::size_t>();
    EXPECT_EQ(fmt::format("{:02x}", static_cast<u8>(read(file.path())[at])),
              r.at("properties").at("bytes").get<std::string>().substr(0, 2));
  }
}

TEST(ScanCommand, TellsWhatVendorsTakeDifferently) {
  // call (66: 4 bytes for AMD); cli; ret for Intel, hlt; ret for AMD; a LOOPNE with F3
  const TempFile file{std::string{"\x66\xe8\x06\x00\x00\x00\xcc\xcc\xcc\xcc\xfa\xc3\xf4\xf3\xe0\xfd\xc3", 17}};
  const std::vector<std::string> raw = {"scan", "--bits", "64", "--base", "0x1000", file.path()};
  const auto with = [&](std::initializer_list<const char*> more) {
    std::vector<std::string> all = raw;
    all.insert(all.end(), more.begin(), more.end());
    return trapline(all);
  };
  const json j = json::parse(with({"--vendor", "both", "--json"}).output)["images"][0];
  EXPECT_EQ(j["vendor"], "both");
  ASSERT_EQ(j["vendor_differences"].size(), 2u);
  const json& call = j["vendor_differences"][0];
  EXPECT_EQ(call["address"], "0x1000");
  EXPECT_EQ(call["intel"]["length"], 6);
  EXPECT_EQ(call["amd"]["length"], 4);
  EXPECT_EQ(j["vendor_differences"][1]["amd"]["text"], "loope 0x000000000000100D");
  const Finished text = with({"--vendor", "both"});
  EXPECT_THAT(text.output, HasSubstr("differs by vendor"));
  EXPECT_THAT(text.output,
              HasSubstr("read as 64-bit code of ring 0 (as raw code: --ring overrides), for Intel and AMD CPUs"));
  for (const char* vendor : {"amd", "intel"})
    EXPECT_THAT(with({"--vendor", vendor}).output, Not(HasSubstr("differs by vendor"))) << vendor;
  const json sarif = json::parse(with({"--vendor", "both", "--sarif"}).output)["runs"][0];
  EXPECT_EQ(sarif["results"].back()["ruleId"], sarif["tool"]["driver"]["rules"].back()["id"]);
}

TEST(ScanCommand, TellsWhatItLeavesOut) {
  const TempFile file{program()};
  const Finished few = trapline({"scan", "--ring", "0", "--max-findings", "1", file.path()});
  EXPECT_EQ(few.code, 0);
  EXPECT_THAT(few.output, HasSubstr("warning: 2 findings beyond the limit are left out"));
  const json sarif = json::parse(trapline({"scan", "--sarif", "--max-findings", "1", file.path()}).output)["runs"][0];
  EXPECT_THAT(sarif["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"].get<std::string>(),
              HasSubstr("beyond the limit"));
  const Finished filtered = trapline({"scan", "--ring", "0", "--class", "critical", file.path()});
  EXPECT_THAT(filtered.output, HasSubstr("not listed, of other classes: critical 0, privileged 1, innocuous 0"));
}

TEST(ScanCommand, BadFilesAreNamedAndTheOthersScanned) {
  const TempFile good{program()}, empty{""}, nonsense{"this is no program"}, cut{program().substr(0, 80)};
  const std::string none = "/nonexistent/program";
  const Finished f = trapline(
      {"scan", "--ring", "0", empty.path(), nonsense.path(), cut.path(), none, "/tmp", "/dev/null", good.path()});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.output, HasSubstr("critical 2   privileged 1"));
  EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 6) << f.errors;
  for (const std::string& line :
       {empty.path() + ": is empty", nonsense.path() + ": is no ELF", cut.path() + ": ELF: truncated",
        none + ": No such file", std::string{"/tmp: is a directory"}, std::string{"/dev/null: is not a regular file"}})
    EXPECT_THAT(f.errors, HasSubstr("trapline: " + line));
  if (::geteuid() != 0) {
    ::chmod(good.path().c_str(), 0);
    EXPECT_THAT(trapline({"scan", good.path()}).errors, HasSubstr("Permission denied"));
  }
}

TEST(ScanCommand, WrongOptionsAreRefused) {
  const TempFile file{program()};
  const std::vector<std::vector<std::string>> wrong = {
      {"--json", "--sarif"}, {"--bits", "8"},      {"--base", "0x10"}, {"--bits", "16", "--base", "x"},
      {"--ring", "1"},       {"--class", "scary"}, {"--vendor", "via"}};
  for (auto options : wrong) {
    options.insert(options.begin(), "scan");
    options.push_back(file.path());
    const Finished f = trapline(options);
    EXPECT_EQ(f.code, 2) << f.errors;
    EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 1) << f.errors;
  }
  const Finished lost = trapline({"scan", file.path(), "-o", "/nonexistent/out"});
  EXPECT_EQ(lost.code, 3);
  EXPECT_THAT(lost.errors, HasSubstr("--output /nonexistent/out"));
  EXPECT_EQ(trapline({"scan", file.path(), "--html", "/nonexistent/out"}).code, 3);
}

TEST(ScanCommand, RawCode) {
  const TempFile file{"\xfa\xf4\xc3"};
  const Finished f = trapline({"scan", "--bits", "16", "--base", "0x7c00", file.path()});
  EXPECT_EQ(f.code, 0);
  EXPECT_THAT(f.output, HasSubstr("00007c00  fa"));
  EXPECT_THAT(f.output, HasSubstr("00007c01  f4"));
}

TEST(ScanReport, HoldsWhatTheGuestExecutedAndNoMore) {
  // cli; jmp over a popf; out 0xf4, al
  const TempFile kernel{multiboot({0xfa, 0xeb, 1, 0x9d, 0xb0, 0, 0xe6, 0xf4, 0xf4})}, report{""};
  const TempFile symbols{"00100020 T entry\n00100024 T leave\n"};
  const Finished f = trapline({"run", "--kernel", kernel.path(), "--memory", "64M", "--scan-report", report.path(),
                               "--system-map", symbols.path()});
  ASSERT_EQ(f.code, 1) << f.errors;
  const json j = json::parse(read(report.path()));
  EXPECT_EQ(j["schema"], "trapline-scan/1");
  const json& findings = j["images"][0]["findings"];
  ASSERT_GE(findings.size(), 2u) << findings;
  EXPECT_EQ(findings[0]["instruction"], "cli");
  EXPECT_EQ(findings[0]["address"], "0x100020");
  EXPECT_EQ(findings[0]["function"], "entry");
  EXPECT_EQ(findings[0]["cpl"], 0);
  EXPECT_EQ(findings[0]["bits"], 32);
  EXPECT_EQ(findings[0]["confidence"], "executed");
  EXPECT_EQ(findings[1]["instruction"], "out");
  EXPECT_EQ(findings[1]["function"], "leave");
  for (const json& finding : findings) EXPECT_NE(finding["instruction"], "popf");
  EXPECT_EQ(trapline({"run", "--kernel", kernel.path(), "--scan-report", "/nonexistent/report"}).code, 3);
}

std::string browser() {
  for (const char* path : {"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"})
    if (std::filesystem::exists(path)) return path;
  return {};
}

// The document after the page's script has run.
std::string dom(const std::string& page, const std::string& fragment) {
  const auto profile = std::filesystem::temp_directory_path() / fmt::format("trapline-browser-{}", ::getpid());
  const Finished f = run(
      {browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
       "--user-data-dir=" + profile.string(), "--virtual-time-budget=5000", "--dump-dom", "file://" + page + fragment},
      {}, seconds{100});
  std::filesystem::remove_all(profile);
  return f.output;
}

TEST(ScanPage, WorksInABrowser) {
  if (browser().empty()) GTEST_SKIP() << "chromium is not installed: scripts/setup.sh test";
  const TempFile file{program()}, raw{""};
  const std::string page = raw.path() + ".html";
  ASSERT_EQ(trapline({"scan", "--ring", "0", file.path(), "--html", page, "-o", "/dev/null"}).code, 0);
  const std::string html = read(page);
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(html, Not(HasSubstr("https://")));
  const std::string all = dom(page, "");
  EXPECT_THAT(all, HasSubstr("data-ready=\"true\""));
  EXPECT_THAT(all, HasSubstr("<output id=\"shown\">3 of 3</output>"));
  EXPECT_THAT(all, HasSubstr("sidt [rax]</span>"));
  EXPECT_THAT(all, HasSubstr("&lt;/script&gt;&lt;b&gt;g"));
  const std::string filtered = dom(page, "#q=popf&class=critical");
  EXPECT_THAT(filtered, HasSubstr("<output id=\"shown\">1 of 3</output>"));
  EXPECT_THAT(filtered, Not(HasSubstr("sidt [rax]</span>")));
  std::filesystem::remove(page);
}

}  // namespace
}  // namespace trapline::test
