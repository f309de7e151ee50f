#include "monitor/text_screen.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

namespace trapline::monitor {

namespace {

constexpr std::string_view kCodePage =
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    " !\"#$%&'()*+,-./0123456789:;<=>?"
    "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
    "`abcdefghijklmnopqrstuvwxyz{|}~⌂"
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ"
    "áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";

constexpr unsigned length_of(char first) {
  const u8 byte = static_cast<u8>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : 3;
}

constexpr auto kPlaces = [] {
  std::array<u16, 257> at{};
  for (std::size_t i = 0; i < 256; i++) at[i + 1] = static_cast<u16>(at[i] + length_of(kCodePage[at[i]]));
  return at;
}();
static_assert(kPlaces[256] == kCodePage.size());

constexpr u32 kNowhere = ~0u, kGap = 6;

// The display's order is blue, green, red; the terminal's red, green, blue.
constexpr unsigned kAnsi[8] = {0, 4, 2, 6, 1, 5, 3, 7};

}  // namespace

std::string_view utf8_of(u8 character) {
  return kCodePage.substr(kPlaces[character], kPlaces[character + 1u] - kPlaces[character]);
}

void TextScreen::move_to(std::string& out, u32 row, u32 column) const {
  out += fmt::format("\x1b[{};{}H", row + 1, column + 1);
}

void TextScreen::draw(std::string& out, Cell cell) {
  if (colours_ != cell.colours) {
    const unsigned front = cell.colours & 15, back = cell.colours >> 4 & 7;  // bit 7 blinks, or does nothing
    out += fmt::format("\x1b[0;{}{}m", (front & 8 ? 90 : 30) + kAnsi[front & 7],
                       back == 0 ? std::string{} : fmt::format(";{}", 40 + kAnsi[back]));
    colours_ = cell.colours;
  }
  out += utf8_of(cell.character);
}

std::string TextScreen::update(const devices::TextMode& mode, std::span<const std::byte> memory) {
  std::string out;
  if (!mode.on && !begun_) return out;
  const bool anew = !begun_ || mode.columns != mode_.columns || mode.rows != mode_.rows || mode.on != mode_.on;
  begun_ = true;
  if (anew) {
    out += "\x1b[0m\x1b[2J\x1b[H";
    colours_ = -1;
    cells_.assign(std::size_t{mode.columns} * mode.rows, Cell{});
  }
  const std::size_t characters = memory.size() / 2;
  for (u32 row = 0; mode.on && row < mode.rows; row++) {
    u32 drawn = kNowhere;  // up to here: where the terminal's cursor is
    for (u32 column = 0; column < mode.columns; column++) {
      const std::size_t index = row * std::size_t{mode.columns} + column;
      Cell cell;
      std::memcpy(&cell, memory.data() + (mode.start + index) % characters * 2, 2);
      if (cell.character == 0) cell.character = ' ';
      if (cell == cells_[index]) continue;
      // A few characters more are shorter than a sequence, and words stay in one piece for who reads along.
      if (drawn > column || column - drawn > kGap)
        move_to(out, row, column);
      else
        for (; drawn < column; drawn++) draw(out, cells_[index - column + drawn]);
      draw(out, cell);
      cells_[index] = cell;
      drawn = column + 1;
    }
  }
  const bool moved = mode.cursor - mode.start != mode_.cursor - mode_.start || !out.empty();
  const u32 cursor = static_cast<u32>((mode.cursor + characters - mode.start) % characters);
  const bool shown = mode.on && mode.has_cursor && cursor / mode.columns < mode.rows;
  if (anew || mode.has_cursor != mode_.has_cursor) out += shown ? "\x1b[?25h" : "\x1b[?25l";
  if (shown && moved) move_to(out, cursor / mode.columns, cursor % mode.columns);
  mode_ = mode;
  return out;
}

std::string TextScreen::leave() {
  if (!begun_) return {};
  std::string out = "\x1b[0m\x1b[?25h";
  move_to(out, mode_.rows, 0);
  begun_ = false;
  return out + "\r\n";
}

}  // namespace trapline::monitor
