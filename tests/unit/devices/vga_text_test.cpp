#include "devices/vga_text.h"

#include <gtest/gtest.h>

#include "unit/devices/fakes.h"

namespace trapline::devices {
namespace {

struct VgaTest : testing::Test {
  FakeTime time;
  VgaText vga{time};
  void out(u16 port, u8 value) { vga.write(port - VgaText::kFirst, 1, value); }
  u8 in(u16 port) { return static_cast<u8>(vga.read(port - VgaText::kFirst, 1)); }
  void crtc(u8 index, u8 value) { out(0x3d4, index), out(0x3d5, value); }
  // Mode 3: 80 x 25 characters of 16 lines.
  void mode3() {
    out(0x3c2, 0x67);
    crtc(0x11, 0x00);
    crtc(1, 79);
    crtc(7, 0x1f);
    crtc(9, 0x4f);
    crtc(0x12, 0x8f);
    crtc(0x17, 0xa3);
    crtc(0x0a, 0x0d), crtc(0x0b, 0x0e);
    in(0x3da);
    out(0x3c0, 0x10), out(0x3c0, 0x0c);
    out(0x3c0, 0x20);
  }
};

TEST_F(VgaTest, ShowsTextOnceItIsSetUp) {
  EXPECT_FALSE(vga.mode().on);
  mode3();
  EXPECT_EQ(vga.mode(), (TextMode{.on = true, .columns = 80, .rows = 25, .start = 0, .has_cursor = true, .cursor = 0}));
  crtc(0x0c, 0x01), crtc(0x0d, 0x40), crtc(0x0e, 0x01), crtc(0x0f, 0x91);
  EXPECT_EQ(vga.mode().start, 0x140u);
  EXPECT_EQ(vga.mode().cursor, 0x191u);
  crtc(0x0a, 0x2d);
  EXPECT_FALSE(vga.mode().has_cursor);
  out(0x3ce, 6), out(0x3cf, 0x05);  // graphics
  EXPECT_FALSE(vga.mode().on);
}

TEST_F(VgaTest, FiftyLines) {
  mode3();
  crtc(9, 0x47);
  EXPECT_EQ(vga.mode().rows, 50u);
}

TEST_F(VgaTest, RegistersReadBackAtTheirAddresses) {
  mode3();
  out(0x3c4, 4), out(0x3c5, 0x02);
  EXPECT_EQ(in(0x3c5), 0x02);
  EXPECT_EQ(in(0x3cc), 0x67);
  EXPECT_EQ(in(0x3b4), 0xff);  // monochrome ones are elsewhere
  out(0x3c8, 5);
  for (const u8 v : {1, 2, 0xff}) out(0x3c9, v);
  out(0x3c7, 5);
  EXPECT_EQ(in(0x3c9), 1);
  EXPECT_EQ(in(0x3c9), 2);
  EXPECT_EQ(in(0x3c9), 0x3f);
  out(0x3c2, 0x66);
  EXPECT_EQ(in(0x3d4), 0xff);
  EXPECT_EQ(in(0x3b5), 0x0e);
}

TEST_F(VgaTest, TheAttributeControllerTakesTurns) {
  mode3();
  in(0x3da);
  out(0x3c0, 0x01), out(0x3c0, 0x2a);
  out(0x3c0, 0x21);
  EXPECT_EQ(in(0x3c1), 0x2a);
  in(0x3da);
  out(0x3c0, 0x01);  // an index again, not data; the screen is off meanwhile
  EXPECT_FALSE(vga.mode().on);
}

TEST_F(VgaTest, LockedTimingStays) {
  mode3();
  crtc(0x11, 0x80);
  crtc(1, 39);
  EXPECT_EQ(vga.mode().columns, 80u);
}

TEST_F(VgaTest, RetraceComesAndGoes) {
  mode3();
  unsigned rises = 0;
  bool up = false;
  for (unsigned i = 0; i < 40'000; i++, time.ns += 5'000) {  // 200 ms
    const bool now = in(0x3da) & 8;
    rises += now && !up;
    up = now;
  }
  EXPECT_GE(rises, 13u);
  EXPECT_LE(rises, 15u);
}

}  // namespace
}  // namespace trapline::devices
