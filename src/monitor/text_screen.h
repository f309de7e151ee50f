// A guest's text screen on a terminal: what has changed since the last look, as UTF-8 and ANSI sequences (ECMA-48).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "devices/vga_text.h"

namespace trapline::monitor {

class TextScreen {
 public:
  // `memory`: the 32 KiB at B8000, which the guest may be writing. Returns what to send; empty: all is as it was.
  std::string update(const devices::TextMode& mode, std::span<const std::byte> memory);
  // Leaves the cursor below the screen, in the terminal's own colours.
  std::string leave();

 private:
  struct Cell {
    u8 character = ' ', colours = 0x07;
    bool operator==(const Cell&) const = default;
  };
  void move_to(std::string& out, u32 row, u32 column) const;
  void draw(std::string& out, Cell cell);

  devices::TextMode mode_;
  std::vector<Cell> cells_;
  bool begun_ = false;
  int colours_ = -1;  // those of the terminal now; -1: its own
};

// Code page 437, which the hardware's font has.
std::string_view utf8_of(u8 character);

}  // namespace trapline::monitor
