// A keyboard of the PS/2 kind (IBM PS/2 Technical Reference, keyboard section): scan code set 2, or 1 when told so, and
// the commands that drivers send. What it says waits here until the controller (devices/i8042.h) fetches it.
#pragma once

#include <array>
#include <optional>

#include "base/types.h"

namespace trapline::devices {

class Ps2Keyboard {
 public:
  static constexpr unsigned kQueue = 64;
  struct State {
    std::array<u8, kQueue> queue{};
    u32 first = 0, waiting = 0;
    u8 pending = 0;  // a command that waits for its byte
    u8 set = 2;
    bool scanning = true;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }
  void reset() { s_ = {}; }

  // A key by its code of set 1, with the prefix E0 or without. Lost when nobody scans or there is no room.
  void press(u8 code, bool extended, bool down);
  bool has_room() const { return s_.waiting + 16 <= kQueue; }  // for a key with its modifiers, down and up

  void receive(u8 byte);  // from the host
  bool has_byte() const { return s_.waiting != 0; }
  u8 take();  // has_byte()

 private:
  void say(u8 byte);

  State s_;
};

// Of set 2 what set 1 has, as an 8042 translates (codes without E0 and F0).
u8 set1_of(u8 set2);
u8 set2_of(u8 set1);

}  // namespace trapline::devices
