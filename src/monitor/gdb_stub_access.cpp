// What a client does to a paused VM: registers, memory, breakpoints and watchpoints.
#include <algorithm>

#include "monitor/gdb_stub.h"

namespace trapline::monitor::gdb {

using channel::DebugRegisters;
using channel::StopKind;

namespace {
constexpr u64 kLongestWatch = 4096;
}

// -- Registers and memory
void Stub::read_register(std::string_view a) {
  const auto number = take_number(a);
  DebugRegisters r;
  if (!number || !a.empty()) return error(kInvalid);
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  const auto hex = layout_->read(r, *number);
  hex ? reply(*hex) : error(kInvalid);
}

void Stub::write_register(std::string_view a) {
  const auto number = take_number(a);
  DebugRegisters r;
  if (!number || !take_char(a, '=')) return error(kInvalid);
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  if (!layout_->write(r, *number, a)) return error(kReadOnly);
  target_.write_registers(current_, r) ? ok() : error(kNotFound);
}

void Stub::write_all_registers(std::string_view hex) {
  DebugRegisters r;
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  if (!layout_->write_all(r, hex)) return error(kReadOnly);
  target_.write_registers(current_, r) ? ok() : error(kNotFound);
}

void Stub::read_memory(std::string_view a) {
  u64 address, length;
  if (!take_range(a, address, length) || !a.empty()) return error(kInvalid);
  std::vector<u8> bytes(std::min<u64>(length, kPacketBytes / 2));
  const std::size_t n = target_.read_memory(current_, Gva{address}, bytes);
  if (n == 0 && length != 0) return error(kBadAddress);
  reply(to_hex(std::span{bytes.data(), std::min(n, bytes.size())}));
}

void Stub::write_memory(std::string_view a, bool binary) {
  u64 address, length;
  if (!take_range(a, address, length) || !take_char(a, ':')) return error(kInvalid);
  std::vector<u8> bytes{a.begin(), a.end()};
  if (!binary) {
    auto decoded = from_hex(a);
    if (!decoded) return error(kInvalid);
    bytes = std::move(*decoded);
  }
  if (bytes.size() != length) return error(kInvalid);
  target_.write_memory(current_, Gva{address}, bytes) == bytes.size() ? ok() : error(kBadAddress);
}

// -- Breakpoints and watchpoints
void Stub::change_point(bool insert, std::string_view a) {
  if (a.empty()) return error(kInvalid);
  const char type = a.front();
  a.remove_prefix(1);
  if (type < '0' || type > '4') return reply("");
  u64 address, length;
  if (!take_char(a, ',') || !take_range(a, address, length)) return error(kInvalid);
  const Point p{type, Gva{address}, length};
  if (type >= '2' && (p.length == 0 || p.length > kLongestWatch)) return error(kInvalid);
  const auto at = std::find(points_.begin(), points_.end(), p);
  if (insert && at == points_.end()) {
    if (points_.size() >= channel::DebugMailbox::kStops) return error(kNoSpace);
    points_.push_back(p);
  }
  if (!insert && at != points_.end()) points_.erase(at);
  publish_points();
  ok();
}

void Stub::publish_points() {
  std::vector<channel::DebugStop> stops;
  for (const Point& p : points_) {
    const StopKind kind = p.type == '2'   ? StopKind::write
                          : p.type == '3' ? StopKind::read
                          : p.type == '4' ? StopKind::access
                                          : StopKind::execute;
    stops.push_back({p.address, static_cast<u32>(p.length), kind});
  }
  target_.set_stops(stops);
}

bool Stub::has_point(char type, Gva address) const {
  return std::any_of(points_.begin(), points_.end(),
                     [&](const Point& p) { return p.type == type && p.address == address; });
}

}  // namespace trapline::monitor::gdb
