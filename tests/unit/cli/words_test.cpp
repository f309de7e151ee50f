#include "cli/words.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace trapline::cli {
namespace {

TEST(Suggestion, NamesWhatIsNearAndNothingElse) {
  const std::vector<std::string> known{"--kernel", "--memory", "--module", "--timeout"};
  EXPECT_EQ(suggestion("--kernl", known), "did you mean --kernel? ");
  EXPECT_EQ(suggestion("--kenrel", known), "did you mean --kernel? ");
  EXPECT_EQ(suggestion("--mem", known), "did you mean --memory? ");
  EXPECT_EQ(suggestion("--time-out", known), "did you mean --timeout? ");
  EXPECT_EQ(suggestion("--frobnicate", known), "");
  EXPECT_EQ(suggestion("--", known), "");
  EXPECT_EQ(suggestion("", known), "");
  EXPECT_EQ(suggestion("x", {}), "");
}

struct Words : testing::Test {
  Words() {
    command->add_option("--kernel,KERNEL", text)->type_name("FILE");
    command->add_option("--cpus", text)->type_name("N");
    command->add_option("--append", text)->type_name("STRING");
    command->add_option("--module", many)->type_name("FILE")->expected(1)->take_all();
    command->add_option("-o,--output", text)->type_name("FILE");
    command->add_flag("--stats", flag);
  }
  std::string check(const std::vector<std::string>& words) { return wrong_words(*command, words); }

  CLI::App app;
  CLI::App* command = app.add_subcommand("run");
  std::string text;
  std::vector<std::string> many;
  bool flag = false;
};

TEST_F(Words, ValuesAreNoOptions) {
  EXPECT_EQ(check({"--append", "--stats --x", "--kernel", "k"}), "");
  EXPECT_EQ(check({"--append=--nonsense", "k"}), "");
  EXPECT_EQ(check({"--module", "a", "--module=b", "k"}), "");
  EXPECT_EQ(check({"-o", "x", "k"}), "");
  EXPECT_EQ(check({"-ox", "k"}), "");
  EXPECT_EQ(check({"--", "--k"}), "");
  EXPECT_EQ(check({"-"}), "") << "a name like any other";
}

TEST_F(Words, WhatIsWrongIsNamed) {
  EXPECT_EQ(check({"--kernl", "k"}), "run: --kernl: no such option: did you mean --kernel? see trapline help run");
  EXPECT_EQ(check({"-stats"}), "run: -stats: no such option: did you mean --stats? see trapline help run");
  EXPECT_EQ(check({"--append"}), "run: --append: its value is missing: --append STRING");
  EXPECT_EQ(check({"--cpus", "2x"}), "run: --cpus 2x: not a number: give a whole one");
  EXPECT_EQ(check({"--cpus", "1", "--cpus", "1"}), "run: --cpus: given twice: give it once");
  EXPECT_EQ(check({"--kernel", "a", "b"}), "run: b: one too many: see trapline help run");
  EXPECT_EQ(check({"--stats=1"}), "run: --stats: takes no value");
  EXPECT_EQ(check({"--x\x1b[31m"}), "run: --x?[31m: no such option: see trapline help run");
}

}  // namespace
}  // namespace trapline::cli
