#include "engine/options.h"

#include <gtest/gtest.h>

namespace trapline::engine::test {
namespace {

TEST(DebugOptions, AreWords) {
  const auto none = DebugOptions::parse("");
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->no_links);
  EXPECT_EQ(none->max_block, DebugOptions::kMostInsns);
  const auto some = DebugOptions::parse("nolink,max-block=3,nothunks");
  ASSERT_TRUE(some);
  EXPECT_TRUE(some->no_links);
  EXPECT_TRUE(some->no_thunks);
  EXPECT_FALSE(some->no_sharing);
  EXPECT_EQ(some->max_block, 3u);
}

TEST(DebugOptions, AWordThatIsNoneIsNamed) {
  for (const char* bad : {"nolinks", "nolink,,nopext", "max-block=", "max-block=0", "max-block=49", "max-block=3x"}) {
    const auto options = DebugOptions::parse(bad);
    ASSERT_FALSE(options) << bad;
    EXPECT_NE(options.error().find("unknown word"), std::string::npos) << options.error();
    EXPECT_NE(options.error().find("nosharing"), std::string::npos) << "the remedy";
  }
}

TEST(Miscompile, IsAnAddressAndAWord) {
  const Miscompile m = Miscompile::parse("0x1234,place");
  EXPECT_EQ(m.address, Gva{0x1234});
  EXPECT_EQ(m.how, Miscompile::How::place);
  EXPECT_EQ(Miscompile::parse("").how, Miscompile::How::none);
  EXPECT_EQ(Miscompile::parse("5,otherwise").how, Miscompile::How::none);
}

}  // namespace
}  // namespace trapline::engine::test
