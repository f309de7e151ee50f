#include "exec/modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::exec {
namespace {

using testing::ElementsAre;

constexpr std::string_view kDependencies =
    "kernel/a.ko.xz: kernel/b-c.ko.xz kernel/d.ko.xz\n"
    "kernel/b-c.ko.xz: kernel/d.ko.xz\n"
    "kernel/d.ko.xz:\n"
    "kernel/unused.ko.xz:\n";

TEST(Modules, EachComesBehindWhatItNeeds) {
  const std::string_view wanted[] = {"d", "a", "b_c", "built_in"};
  const auto order = load_order(kDependencies, "kernel/built-in.ko\n", wanted);
  ASSERT_TRUE(order);
  EXPECT_THAT(*order, ElementsAre("kernel/d.ko.xz", "kernel/b-c.ko.xz", "kernel/a.ko.xz"));
}

TEST(Modules, OneThatIsMissingIsNamed) {
  const std::string_view wanted[] = {"a", "absent"};
  const auto order = load_order(kDependencies, {}, wanted);
  ASSERT_FALSE(order);
  EXPECT_EQ(order.error(), "absent");
  const std::string_view lost[] = {"x"};
  EXPECT_EQ(load_order("x.ko: y.ko\n", {}, lost).error(), "y");
}

TEST(Modules, RingsOfDependenciesEnd) {
  const std::string_view wanted[] = {"x"};
  EXPECT_THAT(*load_order("x.ko: y.ko\ny.ko: x.ko\n", {}, wanted), ElementsAre("y.ko", "x.ko"));
}

TEST(Modules, SignaturesAreCutOff) {
  const std::string word = "~Module signature appended~\n";
  std::vector<u8> module{'E', 'L', 'F', 's', 'i', 'g', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3};
  for (const char c : word) module.push_back(static_cast<u8>(c));
  std::vector<u8> lying = module;
  strip_signature(module);
  EXPECT_THAT(module, ElementsAre('E', 'L', 'F'));
  strip_signature(module);
  EXPECT_EQ(module.size(), 3u);
  lying[17] = 200;
  const std::size_t before = lying.size();
  strip_signature(lying);
  EXPECT_EQ(lying.size(), before);
}

}  // namespace
}  // namespace trapline::exec
