#include "monitor/gdb_packet.h"

namespace trapline::monitor::gdb {

std::optional<Event> PacketReader::next() {
  while (at_ < pending_.size())
    if (auto event = take(pending_[at_++])) return event;
  pending_.clear();
  at_ = 0;
  return std::nullopt;
}

std::optional<Event> PacketReader::take(u8 byte) {
  switch (state_) {
    case State::idle:
      return outside(byte);
    case State::body:
      if (byte == '#') {
        state_ = State::high;
      } else if (byte == '$') {  // the end of the last one was lost
        outside(byte);
      } else {
        sum_ = static_cast<u8>(sum_ + byte);
        if (byte == '}')
          state_ = State::escaped;
        else
          add(byte);
      }
      return std::nullopt;
    case State::escaped:
      sum_ = static_cast<u8>(sum_ + byte);
      add(byte ^ 0x20);
      state_ = State::body;
      return std::nullopt;
    case State::high:
      high_ = hex_digit(byte);
      state_ = State::low;
      return std::nullopt;
    case State::low:
      return finish(byte);
  }
  return std::nullopt;
}

std::optional<Event> PacketReader::outside(u8 byte) {
  switch (byte) {
    case '$':
      state_ = State::body;
      payload_.clear();
      sum_ = 0;
      damaged_ = false;
      return std::nullopt;
    case '+':
      return Event{Event::Kind::ack};
    case '-':
      return Event{Event::Kind::nack};
    case 3:
      return Event{Event::Kind::interrupt};
    default:
      return std::nullopt;
  }
}

void PacketReader::add(u8 byte) {
  if (payload_.size() < kPacketBytes)
    payload_.push_back(static_cast<char>(byte));
  else
    damaged_ = true;
}

Event PacketReader::finish(u8 low) {
  state_ = State::idle;
  const int digit = hex_digit(low);
  const bool good = !damaged_ && high_ >= 0 && digit >= 0 && (high_ << 4 | digit) == sum_;
  if (!good) return Event{Event::Kind::damaged};
  return Event{Event::Kind::packet, std::move(payload_)};
}

std::string frame(std::string_view payload) {
  std::string out{"$"};
  u8 sum = 0;
  const auto put = [&](char c) {
    out.push_back(c);
    sum = static_cast<u8>(sum + static_cast<u8>(c));
  };
  for (const char c : payload) {
    const bool special = c == '$' || c == '#' || c == '}' || c == '*';  // '*' would ask for repetition
    if (special) put('}');
    put(special ? static_cast<char>(c ^ 0x20) : c);
  }
  out.push_back('#');
  return out + to_hex(std::span{&sum, 1});
}

std::string to_hex(std::span<const u8> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const u8 b : bytes) out.push_back(kDigits[b >> 4]), out.push_back(kDigits[b & 15]);
  return out;
}

std::string to_hex(std::string_view text) {
  return to_hex(std::span{reinterpret_cast<const u8*>(text.data()), text.size()});
}

int hex_digit(u8 c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::vector<u8>> from_hex(std::string_view text) {
  if (text.size() % 2) return std::nullopt;
  std::vector<u8> out;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(static_cast<u8>(text[i])), low = hex_digit(static_cast<u8>(text[i + 1]));
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<u8>(high << 4 | low));
  }
  return out;
}

std::optional<u64> take_number(std::string_view& text) {
  u64 value = 0;
  std::size_t n = 0;
  for (int d; n < text.size() && (d = hex_digit(static_cast<u8>(text[n]))) >= 0; n++) {
    if (value >> 60) return std::nullopt;  // longer than 64 bits
    value = value << 4 | static_cast<u64>(d);
  }
  if (n == 0) return std::nullopt;
  text.remove_prefix(n);
  return value;
}

bool take_char(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace trapline::monitor::gdb
