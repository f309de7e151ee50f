#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "devices/i8042.h"
#include "devices/terminal_keys.h"
#include "unit/devices/fakes.h"

namespace trapline::devices {
namespace {

using Bytes = std::vector<u8>;

struct KeyboardTest : testing::Test {
  FakeLine irq1, irq12;
  unsigned resets = 0;
  I8042 controller{irq1, irq12, [this] { resets++; }, true};

  void command(u8 value) { controller.write(4, 1, value); }
  void data(u8 value) { controller.write(0, 1, value); }
  u8 status() { return static_cast<u8>(controller.read(4, 1)); }
  Bytes all() {
    Bytes out;
    while (status() & 1) out.push_back(static_cast<u8>(controller.read(0, 1)));
    return out;
  }
  // As a BIOS does: interrupts, translation, keyboard on.
  void set_up(u8 mode) {
    command(0x60);
    data(mode);
    data(0xf4);
    EXPECT_EQ(all(), (Bytes{0xfa}));
  }
  std::size_t type(std::string_view text) {
    return controller.type(reinterpret_cast<const u8*>(text.data()), text.size());
  }
};

TEST_F(KeyboardTest, AnswersWhatDriversAsk) {
  command(0x60);
  data(0x00);
  data(0xff);
  EXPECT_EQ(all(), (Bytes{0xfa, 0xaa}));
  data(0xf2);
  EXPECT_EQ(all(), (Bytes{0xfa, 0xab, 0x83}));
  data(0xee);
  EXPECT_EQ(all(), (Bytes{0xee}));
  data(0xed);
  data(0x07);
  EXPECT_EQ(all(), (Bytes{0xfa, 0xfa}));
  data(0x12);
  EXPECT_EQ(all(), (Bytes{0xfe}));
  data(0xf0);
  data(0x00);
  EXPECT_EQ(all(), (Bytes{0xfa, 0xfa, 2}));
}

TEST_F(KeyboardTest, TypesInSet1ByTranslation) {
  set_up(0x41);
  EXPECT_EQ(type("a"), 1u);
  EXPECT_TRUE(irq1.up);
  EXPECT_EQ(all(), (Bytes{0x1e, 0x9e}));
  EXPECT_FALSE(irq1.up);
  type("A");
  EXPECT_EQ(all(), (Bytes{0x2a, 0x1e, 0x9e, 0xaa}));
  type("\x1b[B");
  EXPECT_EQ(all(), (Bytes{0xe0, 0x50, 0xe0, 0xd0}));
  type("\r");
  EXPECT_EQ(all(), (Bytes{0x1c, 0x9c}));
  type("\x1b");
  EXPECT_EQ(all(), (Bytes{0x01, 0x81}));
  type("\x03");
  EXPECT_EQ(all(), (Bytes{0x1d, 0x2e, 0xae, 0x9d}));
  type("\x1b[18~");  // F7, whose code has two places in the table
  EXPECT_EQ(all(), (Bytes{0x41, 0xc1}));
  EXPECT_EQ(type("\xc3\xa4"), 2u);  // on no key
  EXPECT_EQ(all(), Bytes{});
}

TEST_F(KeyboardTest, EachByteInterrupts) {
  set_up(0x41);
  const unsigned before = irq1.rises;
  type("a");
  all();
  EXPECT_EQ(irq1.rises, before + 2);
}

TEST_F(KeyboardTest, Set2WithoutTranslation) {
  set_up(0x01);
  type("a");
  EXPECT_EQ(all(), (Bytes{0x1c, 0xf0, 0x1c}));
  data(0xf0);
  data(0x01);
  all();
  type("a");
  EXPECT_EQ(all(), (Bytes{0x1e, 0x9e}));
}

TEST_F(KeyboardTest, TakesWhatItHasRoomFor) {
  set_up(0x41);
  const std::string many(200, 'x');
  const std::size_t taken = type(many);
  EXPECT_GT(taken, 10u);
  EXPECT_LT(taken, 200u);
  EXPECT_FALSE(controller.can_type());
  EXPECT_EQ(all().size(), 2 * taken);
  EXPECT_TRUE(controller.can_type());
}

TEST_F(KeyboardTest, WaitsWhileItsClockIsHeld) {
  set_up(0x41);
  command(0xad);
  type("a");
  EXPECT_EQ(status() & 1, 0);
  command(0xae);
  EXPECT_EQ(all(), (Bytes{0x1e, 0x9e}));
}

TEST(TerminalKeys, EveryCharacterOfAUsKeyboardHasAKey) {
  for (char c = ' '; c < 0x7f; c++) {
    Ps2Keyboard keyboard;
    const u8 byte = static_cast<u8>(c);
    EXPECT_EQ(type_bytes(keyboard, &byte, 1), 1u);
    EXPECT_TRUE(keyboard.has_byte()) << c;
  }
}

TEST(TerminalKeys, TranslationThereAndBack) {
  for (unsigned code = 1; code < 0x59; code++) {
    if (code == 0x55) continue;  // nobody has it
    EXPECT_EQ(set1_of(set2_of(static_cast<u8>(code))), code);
  }
}

}  // namespace
}  // namespace trapline::devices
