// The integers and strings of 9P messages, little-endian, read and written within bounds. What does not fit makes the
// reader or the writer bad for good, which is asked for once, at the end.
#pragma once

#include <cstring>
#include <span>
#include <string_view>

#include "base/types.h"

namespace trapline::share {

class Reader {
 public:
  explicit Reader(std::span<const u8> bytes) : rest_{bytes} {}

  u8 byte() { return number<u8>(); }
  u16 half() { return number<u16>(); }
  u32 word() { return number<u32>(); }
  u64 quad() { return number<u64>(); }
  std::span<const u8> bytes(std::size_t count) {
    if (count > rest_.size()) return spoil();
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::string_view string() {  // u16 length, then bytes; may hold anything
    const auto text = bytes(half());
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  // Everything was there, and nothing more.
  bool complete() const { return good_ && rest_.empty(); }

 private:
  template <class T>
  T number() {
    T value{};
    const auto b = bytes(sizeof(T));
    if (b.size() == sizeof(T)) std::memcpy(&value, b.data(), sizeof(T));
    return value;
  }
  std::span<const u8> spoil() {
    good_ = false;
    rest_ = {};
    return {};
  }
  std::span<const u8> rest_;
  bool good_ = true;
};

class Writer {
 public:
  explicit Writer(std::span<u8> room) : room_{room} {}

  void byte(u8 v) { number(v); }
  void half(u16 v) { number(v); }
  void word(u32 v) { number(v); }
  void quad(u64 v) { number(v); }
  void string(std::string_view text) {
    if (text.size() > 0xffff || left() < 2 + text.size()) return spoil();
    half(static_cast<u16>(text.size()));
    std::memcpy(room_.data() + used_, text.data(), text.size());
    used_ += text.size();
  }
  // Room that the caller fills: what is there beyond `skip` more bytes. skip() then says how much it was.
  std::span<u8> rest(std::size_t skip = 0) { return skip > left() ? std::span<u8>{} : room_.subspan(used_ + skip); }
  void skip(std::size_t count) {
    if (count > left()) return spoil();
    used_ += count;
  }
  std::size_t used() const { return used_; }
  std::size_t left() const { return room_.size() - used_; }
  bool good() const { return good_; }

 private:
  template <class T>
  void number(T value) {
    if (left() < sizeof(T)) return spoil();
    std::memcpy(room_.data() + used_, &value, sizeof(T));
    used_ += sizeof(T);
  }
  void spoil() { good_ = false; }
  std::span<u8> room_;
  std::size_t used_ = 0;
  bool good_ = true;
};

}  // namespace trapline::share
