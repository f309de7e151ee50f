#include "monitor/text_screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::monitor {
namespace {

using testing::HasSubstr;
using testing::Not;

struct TextScreenTest : testing::Test {
  std::vector<std::byte> memory = std::vector<std::byte>(32 * KiB);
  devices::TextMode mode{.on = true, .columns = 80, .rows = 25, .start = 0, .has_cursor = true, .cursor = 0};
  TextScreen screen;
  TextScreenTest() {
    for (std::size_t i = 0; i < memory.size(); i += 2) memory[i] = std::byte{' '}, memory[i + 1] = std::byte{7};
  }
  void put(u32 at, std::string_view text, u8 colours = 7) {
    for (const char c : text) {
      memory[2 * at] = static_cast<std::byte>(c);
      memory[2 * at++ + 1] = static_cast<std::byte>(colours);
    }
  }
  std::string update() { return screen.update(mode, memory); }
};

TEST_F(TextScreenTest, ClearsOnceThenSendsWhatChanges) {
  put(80 + 4, "one word");
  const std::string first = update();
  EXPECT_THAT(first, HasSubstr("\x1b[2J"));
  EXPECT_THAT(first, HasSubstr("\x1b[2;5H"));
  EXPECT_THAT(first, HasSubstr("one word"));  // the gap is drawn, not skipped
  EXPECT_EQ(update(), "");
  put(80 + 8, "w");
  put(80 + 8, "W");
  EXPECT_EQ(update(), "\x1b[2;9HW\x1b[1;1H");
}

TEST_F(TextScreenTest, NothingBeforeTheScreenIsOn) {
  mode.on = false;
  put(0, "early");
  EXPECT_EQ(update(), "");
  EXPECT_EQ(screen.leave(), "");
  mode.on = true;
  EXPECT_THAT(update(), HasSubstr("early"));
}

TEST_F(TextScreenTest, ColoursAreTheTerminals) {
  put(0, "r", 0x04);
  put(1, "y", 0x1e);
  const std::string out = update();
  EXPECT_THAT(out, HasSubstr("\x1b[0;31mr"));
  EXPECT_THAT(out, HasSubstr("\x1b[0;93;44my"));
}

TEST_F(TextScreenTest, CodePage437) {
  EXPECT_EQ(utf8_of('A'), "A");
  EXPECT_EQ(utf8_of(0), " ");
  EXPECT_EQ(utf8_of(0xc4), "\xe2\x94\x80");  // a line
  EXPECT_EQ(utf8_of(0x81), "\xc3\xbc");      // u with two dots
  EXPECT_EQ(utf8_of(0xff), " ");
  for (unsigned c = 0; c < 256; c++) {
    const std::string_view text = utf8_of(static_cast<u8>(c));
    ASSERT_FALSE(text.empty()) << c;
    EXPECT_GE(static_cast<u8>(text[0]), 0x20) << c;  // no control character reaches the terminal
    EXPECT_NE(text[0], 0x7f) << c;
  }
}

TEST_F(TextScreenTest, HardwareScrollingWrapsAround) {
  mode.start = 16 * KiB - 80;
  put(mode.start, "last line of memory");
  put(0, "first line of memory");
  mode.cursor = 5;
  const std::string out = update();
  EXPECT_THAT(out, HasSubstr("last line of memory"));
  EXPECT_THAT(out, HasSubstr("\x1b[2;1Hfirst line of memory"));
  EXPECT_TRUE(out.ends_with("\x1b[2;6H")) << out;
}

TEST_F(TextScreenTest, TheCursorMovesAlone) {
  update();
  mode.cursor = 81;
  EXPECT_EQ(update(), "\x1b[2;2H");
  mode.has_cursor = false;
  EXPECT_EQ(update(), "\x1b[?25l");
}

TEST_F(TextScreenTest, AnotherModeStartsAnew) {
  put(0, "text");
  update();
  mode.rows = 50;
  EXPECT_THAT(update(), HasSubstr("\x1b[2J"));
  mode.on = false;  // graphics: an empty screen
  EXPECT_THAT(update(), HasSubstr("\x1b[2J"));
  EXPECT_THAT(screen.leave(), HasSubstr("\x1b[51;1H"));
}

}  // namespace
}  // namespace trapline::monitor
