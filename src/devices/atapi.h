// What a CD drive answers to packet commands (MMC-5, SPC-3): a read-only disc of 2048-byte blocks that is always in. The
// channel around it (devices/ide.h) moves the bytes.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "base/types.h"

namespace trapline::devices {

inline constexpr u32 kCdBlock = 2048;

// The image. Called under the machine's lock, from whichever thread serves the guest's access.
struct CdImage {
  virtual ~CdImage() = default;
  virtual u32 blocks() const = 0;
  // False: the host could not read it.
  virtual bool read(u32 block, std::span<u8, kCdBlock> to) = 0;
};

class Atapi {
 public:
  using Packet = std::array<u8, 12>;
  struct State {
    u8 sense_key = 6, sense_code = 0x29;  // power on
    bool operator==(const State&) const = default;
  };
  // The answer to a command: bytes, blocks of the disc, or neither. `failed`: check condition, and sense says why.
  struct Answer {
    std::vector<u8> bytes{};
    u32 first = 0, blocks = 0;
    bool failed = false;
  };

  explicit Atapi(CdImage& image) : image_{image} {}
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }
  void reset() { s_ = {}; }

  Answer execute(const Packet& packet);
  // A block of an answer; false: sense says that the medium could not be read.
  bool read(u32 block, std::span<u8, kCdBlock> to);
  u8 sense_key() const { return s_.sense_key; }

 private:
  Answer fail(u8 key, u8 code);
  Answer request_sense(const Packet& packet);
  Answer read_blocks(u32 first, u32 count);
  Answer read_toc(const Packet& packet);
  Answer get_configuration(const Packet& packet);

  CdImage& image_;
  State s_;
};

}  // namespace trapline::devices
