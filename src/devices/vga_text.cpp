#include "devices/vga_text.h"

#include <algorithm>

namespace trapline::devices {

namespace {

constexpr u32 kCharacters = 16 * KiB;  // in 32 KiB at B8000

template <std::size_t N>
u8 get(const std::array<u8, N>& registers, unsigned index) {
  return index < N ? registers[index] : 0;
}
template <std::size_t N>
void set(std::array<u8, N>& registers, unsigned index, u8 value) {
  if (index < N) registers[index] = value;
}

}  // namespace

u64 VgaText::read(u64 offset, unsigned) {
  return offset < kPorts ? read_port(static_cast<u16>(kFirst + offset)) : 0xff;
}

void VgaText::write(u64 offset, unsigned, u64 value) {
  if (offset < kPorts) write_port(static_cast<u16>(kFirst + offset), static_cast<u8>(value));
}

// Misc output, bit 0: colour (3dx) or monochrome (3bx) addresses.
u8 VgaText::read_port(u16 port) {
  const bool colour = s_.misc & 1;
  if ((port & 0xfff0) == (colour ? 0x3b0 : 0x3d0)) return 0xff;
  switch (port) {
    case 0x3b4:
    case 0x3d4:
      return s_.crtc_index;
    case 0x3b5:
    case 0x3d5:
      return get(s_.crtc, s_.crtc_index);
    case 0x3ba:
    case 0x3da:
      s_.attribute_data = false;
      return status();
    case 0x3c0:
      return s_.attribute_index;
    case 0x3c1:
      return get(s_.attribute, s_.attribute_index & 0x1f);
    case 0x3c2:
      return 0x10;  // a monitor is there
    case 0x3c4:
      return s_.sequencer_index;
    case 0x3c5:
      return get(s_.sequencer, s_.sequencer_index);
    case 0x3c6:
      return s_.pixel_mask;
    case 0x3c7:
      return s_.palette_reads ? 3 : 0;
    case 0x3c8:
      return static_cast<u8>(s_.palette_write / 3);
    case 0x3c9: {
      const u8 value = s_.palette[s_.palette_read];
      s_.palette_read = static_cast<u16>((s_.palette_read + 1) % s_.palette.size());
      return value;
    }
    case 0x3ca:
      return s_.feature;
    case 0x3cc:
      return s_.misc;
    case 0x3ce:
      return s_.graphics_index;
    case 0x3cf:
      return get(s_.graphics, s_.graphics_index);
    default:
      return 0xff;
  }
}

void VgaText::write_port(u16 port, u8 value) {
  const bool colour = s_.misc & 1;
  if ((port & 0xfff0) == (colour ? 0x3b0 : 0x3d0)) return;
  switch (port) {
    case 0x3b4:
    case 0x3d4:
      s_.crtc_index = value & 0x1f;
      break;
    case 0x3b5:
    case 0x3d5:
      write_crtc(value);
      break;
    case 0x3ba:
    case 0x3da:
      s_.feature = value;
      break;
    case 0x3c0:
      if (s_.attribute_data)
        set(s_.attribute, s_.attribute_index & 0x1f, value);
      else
        s_.attribute_index = value & 0x3f;  // bit 5: the screen is on
      s_.attribute_data = !s_.attribute_data;
      break;
    case 0x3c2:
      s_.misc = value;
      break;
    case 0x3c4:
      s_.sequencer_index = value & 7;
      break;
    case 0x3c5:
      set(s_.sequencer, s_.sequencer_index, value);
      break;
    case 0x3c6:
      s_.pixel_mask = value;
      break;
    case 0x3c7:
      s_.palette_read = static_cast<u16>(value * 3);
      s_.palette_reads = true;
      break;
    case 0x3c8:
      s_.palette_write = static_cast<u16>(value * 3);
      s_.palette_reads = false;
      break;
    case 0x3c9:
      s_.palette[s_.palette_write] = value & 0x3f;
      s_.palette_write = static_cast<u16>((s_.palette_write + 1) % s_.palette.size());
      break;
    case 0x3ce:
      s_.graphics_index = value & 0xf;
      break;
    case 0x3cf:
      set(s_.graphics, s_.graphics_index, value);
      break;
    default:
      break;
  }
}

// Register 11, bit 7, protects registers 0 to 7, but for one bit of the line compare.
void VgaText::write_crtc(u8 value) {
  const bool locked = s_.crtc[0x11] & 0x80;
  if (locked && s_.crtc_index == 7)
    s_.crtc[7] = static_cast<u8>((s_.crtc[7] & ~0x10) | (value & 0x10));
  else if (!locked || s_.crtc_index > 7)
    set(s_.crtc, s_.crtc_index, value);
}

// Input status 1: bit 3 in the vertical retrace, bit 0 whenever nothing is displayed. 70 frames a second, 449 lines.
u8 VgaText::status() const {
  constexpr u64 kFrameNs = 14'268'000, kLineNs = 31'778, kShownLines = 400, kRetrace = 412, kShownNs = 25'400;
  const u64 in_frame = time_.now_ns() % kFrameNs, line = in_frame / kLineNs;
  const bool retrace = line == kRetrace || line == kRetrace + 1;
  const bool blank = line >= kShownLines || in_frame % kLineNs >= kShownNs;
  return static_cast<u8>((retrace ? 8 : 0) | (blank ? 1 : 0));
}

TextMode VgaText::mode() const {
  TextMode m;
  const bool graphics = (s_.graphics[6] & 1) || (s_.attribute[0x10] & 1);
  m.on = !graphics && (s_.attribute_index & 0x20) && !(s_.sequencer[1] & 0x20) && (s_.crtc[0x17] & 0x80);
  m.columns = std::clamp(s_.crtc[1] + 1u, 20u, 160u);
  const u32 lines = 1 + (s_.crtc[0x12] | (s_.crtc[7] & 2u) << 7 | (s_.crtc[7] & 0x40u) << 3);
  const u32 height = (s_.crtc[9] & 0x1f) + 1u;
  m.rows = std::clamp(lines / height, 1u, 100u);
  m.start = (u32{s_.crtc[0x0c]} << 8 | s_.crtc[0x0d]) % kCharacters;
  const u8 first = s_.crtc[0x0a], last = s_.crtc[0x0b] & 0x1f;
  m.has_cursor = !(first & 0x20) && (first & 0x1f) <= last && (first & 0x1f) < height;
  m.cursor = (u32{s_.crtc[0x0e]} << 8 | s_.crtc[0x0f]) % kCharacters;
  return m;
}

}  // namespace trapline::devices
