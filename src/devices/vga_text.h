// The registers of a VGA (IBM VGA Technical Reference; FreeVGA has the same online) as far as text modes need them: all
// read back what was written, and what a screen shows follows from them. The text itself is RAM at B8000, which programs
// write without this device. There is no graphics memory: in a graphics mode the screen is empty.
#pragma once

#include <array>

#include "devices/device.h"

namespace trapline::devices {

// What the screen shows.
struct TextMode {
  bool on = false;  // a text mode, not blanked
  u32 columns = 80, rows = 25;
  u32 start = 0;  // of the first character, in characters from B8000 on
  bool has_cursor = false;
  u32 cursor = 0;  // likewise
  bool operator==(const TextMode&) const = default;
};

// Ports 3b0..3df, offsets from 3b0.
class VgaText final : public Device {
 public:
  static constexpr u16 kFirst = 0x3b0, kPorts = 0x30;
  struct State {
    std::array<u8, 25> crtc{};
    std::array<u8, 5> sequencer{};
    std::array<u8, 9> graphics{};
    std::array<u8, 21> attribute{};
    std::array<u8, 768> palette{};
    u8 crtc_index = 0, sequencer_index = 0, graphics_index = 0, attribute_index = 0;
    bool attribute_data = false;  // what the next write to 3c0 is
    u8 misc = 0, feature = 0, pixel_mask = 0xff;
    u16 palette_write = 0, palette_read = 0;  // byte in `palette`
    bool palette_reads = false;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  explicit VgaText(TimeSource& time) : time_{time} {}

  const char* name() const override { return "vga"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override { s_ = {}; }

  TextMode mode() const;

 private:
  u8 read_port(u16 port);
  void write_port(u16 port, u8 value);
  void write_crtc(u8 value);
  u8 status() const;

  TimeSource& time_;
  State s_;
};

}  // namespace trapline::devices
