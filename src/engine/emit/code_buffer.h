// Bytes of host code on their way to an address that is known already.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "base/types.h"

namespace trapline::engine::emit {

// A field of emitted code that is another one when the code, or the guest code it was made from, lies elsewhere.
struct Fixup {
  enum class Kind : u8 {
    outside,  // disp32 to something that stays where it is
    cold,
    hot,        // disp32 to the block's other part; value: offset there
    site,       // imm64: &ExitStub; value: its number
    linear,     // imm64: a linear address of the guest
    look_up,    // imm64: slot of the read table for `size` bytes at the linear address `value`
    look_up_w,  // of the write table
    jump,       // disp32 of the jump cache's slot for the linear address `value`
    jump_entry  // of its second half
  };
  Kind kind;
  u8 size = 0;
  u32 at;
  u64 value;
  bool names_linear() const { return kind >= Kind::linear; }
};

// What does not fit is counted and not written: overflowed() says so once, at the end. Of one thread.
class CodeBuffer {
 public:
  static constexpr u32 kCapacity = 64 * 1024;
  // `fixups`: noted for code that may be moved; null: not.
  void begin(u64 address, std::vector<Fixup>* fixups = nullptr) { base_ = address, size_ = 0, fixups_ = fixups; }
  void note(Fixup::Kind kind, u32 at, u64 value, u8 size = 0) {
    if (fixups_) fixups_->push_back({kind, size, at, value});
  }
  // Takes back what was written since size() was `size`.
  void rewind(u32 size) {
    size_ = size;
    while (fixups_ && !fixups_->empty() && fixups_->back().at >= size) fixups_->pop_back();
  }
  u64 pc() const { return base_ + size_; }
  u64 address_of(u32 at) const { return base_ + at; }
  u32 size() const { return size_; }
  const u8* data() const { return bytes_.data(); }
  bool overflowed() const { return size_ > kCapacity; }

  void byte(unsigned b) {
    if (size_ < kCapacity) bytes_[size_] = static_cast<u8>(b);
    size_++;
  }
  template <class... B>
  void put(B... b) {
    (byte(static_cast<unsigned>(b)), ...);
  }
  void imm16(u16 v) { put(v & 255, v >> 8); }
  void imm32(u64 v) { put(v & 255, v >> 8 & 255, v >> 16 & 255, v >> 24 & 255); }
  void imm64(u64 v) { imm32(v), imm32(v >> 32); }
  void append(std::span<const u8> code) {
    if (size_ + code.size() <= kCapacity) std::memcpy(&bytes_[size_], code.data(), code.size());
    size_ += static_cast<u32>(code.size());
  }
  void patch(u32 at, const void* bytes, u32 size) {
    if (at + size <= kCapacity) std::memcpy(&bytes_[at], bytes, size);
  }
  void patch8(u32 at, u8 v) {
    if (at < kCapacity) bytes_[at] = v;
  }
  void patch32(u32 at, u32 v) {
    for (u32 i = 0; i < 4 && at + i < kCapacity; i++) bytes_[at + i] = static_cast<u8>(v >> 8 * i);
  }

 private:
  std::array<u8, kCapacity> bytes_;
  u64 base_ = 0;
  u32 size_ = 0;
  std::vector<Fixup>* fixups_ = nullptr;
};

}  // namespace trapline::engine::emit
