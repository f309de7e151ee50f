// Packets of the GDB remote serial protocol: "$payload#checksum", acknowledgements, the interrupt byte, and
// hexadecimal. (GDB manual, appendix E "Remote Protocol", Overview.) What a client sends may be any bytes.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace trapline::monitor::gdb {

inline constexpr std::size_t kPacketBytes = 0x4000;  // longest payload, as told to the client

struct Event {
  enum class Kind : u8 { packet, damaged /* checksum or length */, ack, nack, interrupt };
  Kind kind;
  std::string payload = {};  // packet: without escapes
};

// Takes bytes as they arrive, in pieces of any size; gives events in order. Bytes outside packets are ignored.
class PacketReader {
 public:
  void feed(std::span<const u8> bytes) { pending_.insert(pending_.end(), bytes.begin(), bytes.end()); }
  std::optional<Event> next();

 private:
  enum class State : u8 { idle, body, escaped, high, low };
  std::optional<Event> take(u8 byte);
  std::optional<Event> outside(u8 byte);
  void add(u8 byte);
  Event finish(u8 low);

  std::vector<u8> pending_;
  std::size_t at_ = 0;
  State state_ = State::idle;
  std::string payload_;
  u8 sum_ = 0;
  int high_ = 0;
  bool damaged_ = false;
};

std::string frame(std::string_view payload);  // escapes what has a meaning

std::string to_hex(std::span<const u8> bytes);
std::string to_hex(std::string_view text);
int hex_digit(u8 c);                                             // -1: none
std::optional<std::vector<u8>> from_hex(std::string_view text);  // pairs of digits, nothing else
std::optional<u64> take_number(std::string_view& text);  // the hexadecimal digits at its start (at most 16), taken off
bool take_char(std::string_view& text, char c);

}  // namespace trapline::monitor::gdb
