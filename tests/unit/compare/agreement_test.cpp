#include "compare/agreement.h"

#include <gtest/gtest.h>

#include "compare/comparison.h"
#include "compare/plot.h"

namespace trapline::compare {
namespace {

GuestRun says(std::vector<std::string> lines, int code = 0) {
  GuestRun run;
  run.code = code;
  for (std::string& line : lines) run.lines.push_back({1, std::move(line)});
  return run;
}

TEST(Agreement, AKernelsMessagesTellOfTheMachine) {
  for (const char* line : {"[    0.000000] Linux version", "[12345.678901] x", "", "  ", "about to get started..."})
    EXPECT_TRUE(tells_of_machine(line)) << line;
  for (const char* line :
       {"[ok] x", "[1.5] x", "[    0.0000001] x", "[.000000] x", "x [    0.000000]", "[    0.000000"})
    EXPECT_FALSE(tells_of_machine(line)) << line;
}

TEST(Agreement, NamesTheFirstDifference) {
  const GuestRun a = says({"one", "[    0.000001] a", "two", "three"});
  EXPECT_FALSE(difference(a, says({"one", "two", "[    0.000009] b", "three"})));
  EXPECT_EQ(describe(*difference(a, says({"one", "2", "drei"}))), "line 2: 'two', but '2'");
  EXPECT_EQ(describe(*difference(a, says({"one", "two"}))), "line 3: 'three', but no line there");
  EXPECT_EQ(describe(*difference(a, says({"one", "two", "three", "four"}))), "line 4: no line there, but 'four'");
  EXPECT_EQ(describe(*difference(a, says({"one", "two", "three"}, 4))), "exit codes: 0, but 4");
  EXPECT_EQ(describe(*difference(says({"\x1b[31m"}), says({}))), "line 1: '?[31m', but no line there");
}

TEST(Spread, IsMedianAndEnds) {
  const Spread odd = spread_of({3, 1, 2}), even = spread_of({4, 1, 2, 3}), one = spread_of({7});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.most, 3);
  EXPECT_EQ(even.median, 2.5);
  EXPECT_EQ(one.median, 7);
}

TEST(Parts, AreTheTimesBetweenLines) {
  GuestRun run;
  run.lines = {{2, "noise"}, {3, "workload: begin"}, {5, "workload: compute 1"}, {5.5, "workload: end"}};
  const auto parts = parts_of(run);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].name, "boot");
  EXPECT_EQ(parts[0].seconds, 3);
  EXPECT_EQ(parts[1].name, "compute");
  EXPECT_EQ(parts[1].seconds, 2);
}

TEST(Plot, Scales) {
  EXPECT_DOUBLE_EQ(tick_of(5), 1);
  EXPECT_DOUBLE_EQ(tick_of(14), 5);
  EXPECT_DOUBLE_EQ(tick_of(0.02), 0.005);
  const std::string svg = bars({{"a<b", "1 s", {{1, "rest", "t"}}, 0, 0, {}}}, {.unit = "s"}, "d");
  EXPECT_NE(svg.find("a&lt;b"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Techniques, TheReferenceIsFirst) {
  const auto all = all_techniques({{"none", machine::ParaChoice::none}, {"kvm", machine::ParaChoice::kvm}}, 1);
  ASSERT_GE(all.size(), 2u);
  EXPECT_EQ(all[0].name(), "interpret, none");
  EXPECT_EQ(all[1].name(), "interpret, kvm");
  EXPECT_TRUE(all[0].slow);
}

}  // namespace
}  // namespace trapline::compare
