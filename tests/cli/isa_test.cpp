// trapline isa, as a user meets it: output forms, colours, exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

Finished isa(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {TRAPLINE_EXECUTABLE, "isa"});
  Process::Options options;
  options.merge_stderr = false;
  return run(arguments, {}, seconds{60}, options);
}

TEST(Isa, PrintsTheVerdictAndTheTableWithoutColourIntoAPipe) {
  const Finished f = isa({});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("not virtualizable by trap-and-emulate"));
  EXPECT_THAT(f.output, HasSubstr("\nPOPF "));
  EXPECT_THAT(f.output, Not(HasSubstr("\x1b")));
  EXPECT_EQ(f.errors, "");
}

TEST(Isa, ExplainsByRunning) {
  const Finished f = isa({"POPF"});
  EXPECT_THAT(f.output, Not(HasSubstr(": :")));
  EXPECT_EQ(f.code, 0) << f.errors;
  const std::string words = std::regex_replace(f.output, std::regex{"\\s+"}, " ");  // lines end where they are full
  EXPECT_THAT(words, HasSubstr("asked for IF 0"));
  EXPECT_THAT(words, HasSubstr("IF 1, IOPL 0, and no trap"));
  for (const char* technique : {"translate", "patch", "cage", "para"}) EXPECT_THAT(f.output, HasSubstr(technique));
}

TEST(Isa, UnknownNamesAndOptionsAreRefusedInOneLine) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"POOF"},
                                                    {"popf", "x\n\x1b[31m"},
                                                    {"--ring", "2"},
                                                    {"--class", "nice"},
                                                    {"--json", "--html"},
                                                    {"--nonsense"},
                                                    {""}}) {
    const Finished f = isa(arguments);
    EXPECT_EQ(f.code, 2) << f.errors;
    EXPECT_EQ(f.output, "");
    EXPECT_EQ(std::count(f.errors.begin(), f.errors.end(), '\n'), 1) << f.errors;
    EXPECT_THAT(f.errors, StartsWith("trapline: "));
    EXPECT_THAT(f.errors, Not(HasSubstr("\x1b")));
  }
  EXPECT_THAT(isa({"POOF"}).errors, HasSubstr("POPF"));
}

TEST(Isa, VerifiesThisHost) {
  const Finished f = isa({"--verify"});
  EXPECT_EQ(f.code, 0) << f.output;
  EXPECT_THAT(f.output, HasSubstr(" 0 mismatches"));
}

TEST(Isa, FiltersAndMachineReadableForms) {
  const Finished ring3 = isa({"--ring", "3", "--class", "critical"});
  EXPECT_EQ(ring3.code, 0);
  EXPECT_THAT(ring3.output, Not(HasSubstr("\nPOPF ")));
  EXPECT_THAT(ring3.output, HasSubstr("\nLSL "));
  const Finished json = isa({"--json", "lsl"});
  EXPECT_EQ(json.code, 0);
  EXPECT_THAT(json.output, StartsWith("{"));
  EXPECT_THAT(json.output, HasSubstr("\"id\": \"lsl\""));
  EXPECT_THAT(json.output, Not(HasSubstr("\"id\": \"popf\"")));
  const Finished html = isa({"--html"});
  EXPECT_EQ(html.code, 0);
  EXPECT_THAT(html.output, StartsWith("<!doctype html>"));
}

TEST(Isa, AFullDiskIsSaid) {
  const Finished f =
      run({"/bin/sh", "-c", std::string{TRAPLINE_EXECUTABLE} + " isa --html >/dev/full"}, {}, seconds{60}, {});
  EXPECT_EQ(f.code, 9);
  EXPECT_THAT(f.output + f.errors, HasSubstr("standard output: No space left on device"));
}

}  // namespace
}  // namespace trapline::test
