#include "devices/atapi.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace trapline::devices {

namespace {

using Bytes = std::vector<u8>;

// SPC-3 4.5.6: sense keys; MMC-5 annex F: additional sense codes.
constexpr u8 kNoSense = 0, kMediumError = 3, kIllegalRequest = 5, kUnitAttention = 6;
constexpr u8 kReadError = 0x11, kInvalidCommand = 0x20, kBlockOutOfRange = 0x21, kInvalidField = 0x24;
constexpr u8 kLeadOut = 0xaa;

u32 big16(const u8* p) { return u32{p[0]} << 8 | p[1]; }
u32 big32(const u8* p) { return big16(p) << 16 | big16(p + 2); }
void put(Bytes& out, u64 value, unsigned bytes) {
  while (bytes-- > 0) out.push_back(static_cast<u8>(value >> 8 * bytes));
}

// Frames of 1/75 s from the start of the disc's first track, which is 2 s in.
void put_place(Bytes& out, u32 block, bool as_time) {
  if (!as_time) return put(out, block, 4);
  const u32 frames = block + 150;
  put(out, frames / 75 / 60 << 16 | (frames / 75 % 60) << 8 | frames % 75, 4);
}

Bytes inquiry() {
  Bytes out{0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0};  // CD/DVD, removable, ATAPI
  for (const std::string_view text : {"TRAPLINE", "CD-ROM          ", "1.0 "})
    out.insert(out.end(), text.begin(), text.end());
  return out;
}

// MMC-3 5.5.10: capabilities and mechanical status, and error recovery.
Bytes mode_sense(u8 page) {
  Bytes out(8, 0);
  if (page == 0x01 || page == 0x3f) out.insert(out.end(), {0x01, 0x06, 0, 5, 0, 0, 0, 0});
  if (page == 0x2a || page == 0x3f)
    out.insert(out.end(), {0x2a, 18, 0x3b, 0, 0x71, 0x60, 0x29, 0, 0x02, 0xc2, 0, 2, 2, 0, 0x02, 0xc2, 0, 0, 0, 0});
  if (out.size() == 8) return {};
  out[0] = static_cast<u8>((out.size() - 2) >> 8);
  out[1] = static_cast<u8>(out.size() - 2);
  out[2] = 0x01;  // a data disc
  return out;
}

Bytes cut(Bytes bytes, std::size_t most) {
  if (bytes.size() > most) bytes.resize(most);
  return bytes;
}

}  // namespace

Atapi::Answer Atapi::fail(u8 key, u8 code) {
  s_ = {key, code};
  return {.failed = true};
}

Atapi::Answer Atapi::request_sense(const Packet& packet) {
  Bytes out(18, 0);
  out[0] = 0x70;
  out[2] = s_.sense_key;
  out[7] = 10;
  out[12] = s_.sense_code;
  s_ = {kNoSense, 0};
  return {.bytes = cut(std::move(out), packet[4])};
}

Atapi::Answer Atapi::read_blocks(u32 first, u32 count) {
  constexpr u32 kMost = 0xffff;  // of one command
  const u32 all = image_.blocks();
  if (first > all || count > all - first) return fail(kIllegalRequest, kBlockOutOfRange);
  if (count > kMost) return fail(kIllegalRequest, kInvalidField);
  return {.bytes = {}, .first = first, .blocks = count};
}

// One session with one data track, of formats 0 and 1.
Atapi::Answer Atapi::read_toc(const Packet& packet) {
  const bool as_time = packet[1] & 2;
  const u8 format = (packet[2] & 0xf) != 0 ? packet[2] & 0xf : packet[9] >> 6;
  Bytes out{0, 0, 1, 1};
  const auto track = [&](u8 number, u32 block) {
    out.insert(out.end(), {0, 0x14, number, 0});
    put_place(out, block, as_time);
  };
  if (format == 0) {
    if (packet[6] > 1 && packet[6] != kLeadOut) return fail(kIllegalRequest, kInvalidField);
    if (packet[6] <= 1) track(1, 0);
    track(kLeadOut, image_.blocks());
  } else if (format == 1) {
    track(1, 0);
  } else {
    return fail(kIllegalRequest, kInvalidField);
  }
  out[1] = static_cast<u8>(out.size() - 2);
  return {.bytes = cut(std::move(out), big16(&packet[7]))};
}

// The profile is that of a CD-ROM: no features beyond the list of profiles.
Atapi::Answer Atapi::get_configuration(const Packet& packet) {
  Bytes out;
  put(out, 12, 4);
  put(out, 0x0008, 4);      // current profile
  put(out, 0x00000304, 4);  // feature 0, current
  put(out, 0x00080100, 4);
  return {.bytes = cut(std::move(out), big16(&packet[7]))};
}

bool Atapi::read(u32 block, std::span<u8, kCdBlock> to) {
  if (image_.read(block, to)) return true;
  s_ = {kMediumError, kReadError};
  return false;
}

Atapi::Answer Atapi::execute(const Packet& packet) {
  enum Command : u8 {
    test_unit_ready = 0x00,
    sense = 0x03,
    inquire = 0x12,
    start_stop = 0x1b,
    prevent_removal = 0x1e,
    read_capacity = 0x25,
    read10 = 0x28,
    seek10 = 0x2b,
    toc = 0x43,
    configuration = 0x46,
    event_status = 0x4a,
    disc_information = 0x51,
    mode_sense10 = 0x5a,
    read12 = 0xa8,
  };
  const u8 command = packet[0];
  // A unit attention is told once, but to those who only ask what there is.
  if (s_.sense_key == kUnitAttention && command != sense && command != inquire && command != configuration &&
      command != event_status) {
    if (command == test_unit_ready) return {.failed = true};
    s_ = {kNoSense, 0};
  }
  if (command != sense) s_ = {kNoSense, 0};
  switch (command) {
    case test_unit_ready:
    case start_stop:
    case prevent_removal:
    case seek10:
      return {};
    case sense:
      return request_sense(packet);
    case inquire:
      return {.bytes = cut(inquiry(), packet[4])};
    case read_capacity: {
      Bytes out;
      put(out, image_.blocks() - 1, 4);
      put(out, kCdBlock, 4);
      return {.bytes = std::move(out)};
    }
    case read10:
      return read_blocks(big32(&packet[2]), big16(&packet[7]));
    case read12:
      return read_blocks(big32(&packet[2]), big32(&packet[6]));
    case toc:
      return read_toc(packet);
    case configuration:
      return get_configuration(packet);
    case event_status: {
      if (!(packet[1] & 1)) return fail(kIllegalRequest, kInvalidField);  // only by polling
      const bool media = packet[4] & 0x10;
      Bytes out = media ? Bytes{0, 6, 0x04, 0x10, 0x00, 0x02, 0, 0} : Bytes{0, 2, 0x80, 0x10};
      return {.bytes = cut(std::move(out), big16(&packet[7]))};
    }
    case disc_information:
      return {.bytes = cut({0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0,  0,    0, 0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0, 0},
                           big16(&packet[7]))};
    case mode_sense10: {
      Bytes out = mode_sense(packet[2] & 0x3f);
      if (out.empty()) return fail(kIllegalRequest, kInvalidField);
      return {.bytes = cut(std::move(out), big16(&packet[7]))};
    }
    default:
      return fail(kIllegalRequest, kInvalidCommand);
  }
}

}  // namespace trapline::devices
