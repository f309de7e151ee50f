#include "devices/virtio/net.h"

namespace trapline::devices::virtio {

namespace {

// 5.1.3
constexpr u64 kMtu = 1 << 3, kMac = 1 << 5, kMergeable = 1 << 15, kStatus = 1 << 16;

// 5.1.6: all zeros but for the last, as no offload is offered.
struct Header {
  u8 flags, gso_type;
  u16 header_bytes, gso_size, checksum_start, checksum_offset;
  u16 buffers;
};
static_assert(sizeof(Header) == 12);

// 5.1.4
struct Config {
  MacAddress mac;
  u16 status, pairs, mtu;
};
static_assert(sizeof(Config) == 12);

}  // namespace

Net::Net(const Settings& settings, FrameSink& sink, std::function<void()> buffers_came)
    : Backend{{.type = 1,
               .name = "virtio-net",
               .class_code = 0x020000,
               .features = kMac | kStatus | kMergeable | kMtu,
               .queues = {256, 256}}},
      settings_{settings},
      sink_{sink},
      buffers_came_{std::move(buffers_came)} {}

void Net::read_config(u64 offset, std::span<u8> out) const {
  copy_config(Config{settings_.mac, static_cast<u16>(up_ ? 1 : 0), 1, settings_.mtu}, offset, out);
}

void Net::start(u64 features) {
  std::lock_guard guard{lock_};
  running_ = true;
  mergeable_ = features & kMergeable;
}

void Net::stop() {
  std::lock_guard guard{lock_};
  running_ = false;
  collected_.clear();
}

// Buffers that were taken and not used are in flight: a device is saved without any.
std::vector<u8> Net::save() const {
  std::lock_guard guard{lock_};
  return {running_, mergeable_};
}

void Net::restore(std::span<const u8> state, u64) {
  std::lock_guard guard{lock_};
  collected_.clear();
  running_ = state.size() == 2 && state[0] != 0;
  mergeable_ = state.size() == 2 && state[1] != 0;
}

void Net::set_link(bool up) {
  if (up_.exchange(up) != up) device().config_changed();
}

void Net::serve(unsigned index) {
  if (index == receive) {
    queue(receive).listen();
    return buffers_came_();
  }
  serve_all(queue(transmit), [this](Request&& request) { send(std::move(request)); });
  queue(transmit).signal();
}

void Net::send(Request&& request) {
  const u64 bytes = request.readable_bytes();
  if (bytes > sizeof(Header) && bytes - sizeof(Header) <= kLargestFrame) {
    std::vector<iovec> frame;
    u64 skip = sizeof(Header);
    for (const Segment& s : request.readable()) {
      const u64 skipped = std::min<u64>(skip, s.bytes.size());
      skip -= skipped;
      if (skipped < s.bytes.size()) frame.push_back({s.bytes.data() + skipped, s.bytes.size() - skipped});
    }
    sink_.send(frame);
  }
  queue(transmit).complete(std::move(request), 0);
}

// With mergeable buffers a frame may take as many as it needs (5.1.6.3.2), else one must do.
Net::Room Net::collect(u64 bytes) {
  u64 room = 0;
  for (const Request& r : collected_) room += r.writable_bytes();
  while (room < bytes) {
    if (!collected_.empty() && !mergeable_) return Room::never;
    auto request = queue(receive).next();
    if (!request) return Room::none;
    if (request->writable_bytes() < sizeof(Header)) {
      queue(receive).complete(std::move(*request), 0);  // no buffer
      continue;
    }
    room += request->writable_bytes();
    collected_.push_back(std::move(*request));
  }
  return Room::enough;
}

bool Net::deliver(std::span<const std::byte> frame) {
  std::vector<Request> buffers;
  {
    std::lock_guard guard{lock_};
    if (!running_ || frame.size() > kLargestFrame) return true;
    Room room = collect(sizeof(Header) + frame.size());
    if (room == Room::none) {
      if (!queue(receive).listen()) return false;
      room = collect(sizeof(Header) + frame.size());
    }
    if (room != Room::enough) return room == Room::never;
    buffers = std::move(collected_);
    collected_.clear();
  }
  fill(std::move(buffers), frame);
  queue(receive).signal();
  return true;
}

void Net::fill(std::vector<Request> buffers, std::span<const std::byte> frame) {
  Header header{};
  header.buffers = static_cast<u16>(buffers.size());
  for (u64 offset = sizeof header; Request & r : buffers) {
    const u64 n = std::min<u64>(frame.size(), r.writable_bytes() - offset);
    if (offset != 0) r.write(0, header);
    r.write(offset, frame.first(n));
    frame = frame.subspan(n);
    queue(receive).complete(std::move(r), static_cast<u32>(offset + n));
    offset = 0;
  }
}

}  // namespace trapline::devices::virtio
