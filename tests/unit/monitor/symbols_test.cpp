#include "monitor/symbols.h"

#include <gtest/gtest.h>

namespace trapline::monitor {
namespace {

const Symbols kMap = Symbols::parse(
    "ffffffff81000100 T beta\nffffffff81000000 T alpha\n\nnonsense\nffffffff zz\nffffffff81000200 t gamma");

TEST(Symbols, NamesTheNearestBelow) {
  EXPECT_EQ(kMap.name(Gva{0xffffffff81000000}), "alpha+0x0");
  EXPECT_EQ(kMap.name(Gva{0xffffffff810001ff}), "beta+0xff");
  EXPECT_EQ(kMap.name(Gva{0xffffffff81000210}), "gamma+0x10");
  EXPECT_EQ(kMap.name(Gva{0xffffffff80000000}), "");
  EXPECT_EQ(kMap.name(Gva{0xffffffffff000000}), "") << "too far to mean anything";
}

TEST(Present, NamesMarkedAddressesAndHidesControlCharacters) {
  EXPECT_EQ(present("rip @ffffffff81000104\n", kMap), "rip ffffffff81000104 <beta+0x4>\n");
  EXPECT_EQ(present("\x1b[31m@", kMap), "?[31m");
  EXPECT_EQ(present("@zz @ffffffff8100010400000000ff", kMap), "zz ffffffff81000104 <beta+0x4>00000000ff");
}

}  // namespace
}  // namespace trapline::monitor
