#include "devices/virtio/net.h"

#include "devices/virtio/net_offload.h"

namespace trapline::devices::virtio {

namespace {

// 5.1.3
constexpr u64 kChecksum = 1 << 0, kGuestChecksum = 1 << 1, kMtu = 1 << 3, kMac = 1 << 5, kGuestTcp4 = 1 << 7,
              kGuestTcp6 = 1 << 8, kGuestEcn = 1 << 9, kHostTcp4 = 1 << 11, kHostTcp6 = 1 << 12, kHostEcn = 1 << 13,
              kMergeable = 1 << 15, kStatus = 1 << 16;
constexpr u64 kOwn = kMac | kStatus | kMergeable | kMtu | kChecksum | kGuestChecksum | kHostTcp4 | kHostTcp6 |
                     kHostEcn | kGuestTcp4 | kGuestTcp6;
constexpr u64 kOfTheSink = kGuestEcn;

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
               .features = sink.has_headers() ? kOwn | kOfTheSink : kOwn,
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
  use(features);
}

void Net::use(u64 features) {
  mergeable_ = features & kMergeable;
  features_ = features;
}

// 5.1.3.1
bool Net::accepts(u64 features) const {
  const auto needs = [features](u64 these, u64 one) { return !(features & these) || features & one; };
  return needs(kGuestTcp4 | kGuestTcp6, kGuestChecksum) && needs(kGuestEcn, kGuestTcp4 | kGuestTcp6) &&
         needs(kHostTcp4 | kHostTcp6, kChecksum) && needs(kHostEcn, kHostTcp4 | kHostTcp6);
}

void Net::stop() {
  std::lock_guard guard{lock_};
  running_ = false;
  collected_.clear();
}

// Buffers that were taken and not used are in flight: a device is saved without any.
std::vector<u8> Net::save() const {
  std::lock_guard guard{lock_};
  return {running_};
}

void Net::restore(std::span<const u8> state, u64 features) {
  std::lock_guard guard{lock_};
  collected_.clear();
  running_ = state.size() == 1 && state[0] != 0;
  use(running_ ? features : 0);
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
  NetHeader header;
  if (bytes > sizeof header && bytes - sizeof header <= kLargestFrame && request.read(0, header))
    send_finished(request, header);
  queue(transmit).complete(std::move(request), 0);
}

void Net::send_finished(const Request& request, NetHeader header) {
  const u64 features = features_;
  if (!(features & kChecksum)) header = {};
  header.buffers = 0;
  const bool plain = header.flags == 0 && header.segmentation == net_segmentation::none;
  if (!plain && !sink_.has_headers()) {
    // What is looked at is a copy: the guest may rewrite its own.
    outgoing_.resize(request.readable_bytes() - sizeof header);
    if (!request.read(sizeof header, std::span<std::byte>{outgoing_})) return;
    if (header.segmentation != net_segmentation::none) {
      if (sink_.takes_large()) header.segment_bytes = 0xffff;
      segment(header, outgoing_, [this](std::span<const iovec> frame) { sink_.send(frame); });
      return;
    }
    if (header.flags & net_flag::needs_checksum && !finish_checksum(header, outgoing_)) return;
    const iovec whole{outgoing_.data(), outgoing_.size()};
    return sink_.send({&whole, 1});
  }
  std::vector<iovec> frame;
  if (sink_.has_headers()) frame.push_back({&header, sizeof header});
  u64 skip = sizeof header;
  for (const Segment& s : request.readable()) {
    const u64 skipped = std::min<u64>(skip, s.bytes.size());
    skip -= skipped;
    if (skipped < s.bytes.size()) frame.push_back({s.bytes.data() + skipped, s.bytes.size() - skipped});
  }
  sink_.send(frame);
}

// With mergeable buffers a frame may take as many as it needs (5.1.6.3.2), else one must do.
Net::Room Net::collect(u64 bytes) {
  u64 room = 0;
  for (const Request& r : collected_) room += r.writable_bytes();
  while (room < bytes) {
    if (!collected_.empty() && !mergeable_) return Room::never;
    auto request = queue(receive).next();
    if (!request) return Room::none;
    if (request->writable_bytes() < sizeof(NetHeader)) {
      queue(receive).complete(std::move(*request), 0);  // no buffer
      continue;
    }
    room += request->writable_bytes();
    collected_.push_back(std::move(*request));
  }
  return Room::enough;
}

bool Net::deliver(Frame frame) { return deliver({&frame, 1}) == 1; }

std::size_t Net::deliver(std::span<const Frame> frames) {
  std::size_t done = 0;
  while (done < frames.size()) {
    NetHeader header;
    const bool large = features_ & (kGuestTcp4 | kGuestTcp6) && !sink_.has_headers();
    const std::size_t count = large ? coalesce(frames.subspan(done), header, incoming_) : 1;
    if (count > 1 && takes(header) && put(header, incoming_))
      done += count;
    else if (hand_over(frames[done]))  // a large one may be more than the buffers can ever hold
      done++;
    else
      break;
  }
  queue(receive).signal();
  return done;
}

bool Net::hand_over(Frame frame) {
  NetHeader header;
  if (sink_.has_headers()) {
    if (frame.size() < sizeof header) return true;
    std::memcpy(&header, frame.data(), sizeof header);
    frame = frame.subspan(sizeof header);
  } else if (features_ & kGuestChecksum && checksum_is_right(frame)) {
    header.flags = net_flag::data_valid;
  }
  if (takes(header)) return put(header, frame);
  // Else all of the work is ours. What finds no room TCP will send again.
  const bool whole = header.segmentation == net_segmentation::none;
  if (whole && !(header.flags & net_flag::needs_checksum)) return put({}, frame);
  std::vector<std::byte> copy(frame.begin(), frame.end());
  if (whole) return !finish_checksum(header, copy) || put({}, copy);
  segment(header, copy, [this](std::span<const iovec> pieces) {
    std::vector<std::byte> one;
    for (const iovec& v : pieces) {
      const auto* from = static_cast<const std::byte*>(v.iov_base);
      one.insert(one.end(), from, from + v.iov_len);
    }
    (void)put({}, one);
  });
  return true;
}

// Has the driver agreed to frames with such a header?
bool Net::takes(const NetHeader& header) const {
  const u64 features = features_;
  if (header.flags != 0 && !(features & kGuestChecksum)) return false;
  const u8 kind = header.segmentation & static_cast<u8>(~net_segmentation::ecn);
  if (header.segmentation & net_segmentation::ecn && !(features & kGuestEcn)) return false;
  return kind == net_segmentation::none || (kind == net_segmentation::tcp4 && features & kGuestTcp4) ||
         (kind == net_segmentation::tcp6 && features & kGuestTcp6);
}

bool Net::put(const NetHeader& header, std::span<const std::byte> frame) {
  std::vector<Request> buffers;
  {
    std::lock_guard guard{lock_};
    if (!running_ || frame.size() > kLargestFrame) return true;
    Room room = collect(sizeof header + frame.size());
    if (room == Room::none) {
      if (!queue(receive).listen()) return false;
      room = collect(sizeof header + frame.size());
    }
    if (room != Room::enough) return room == Room::never;
    // More may have been collected for a larger one that found no room.
    std::size_t used = 0;
    for (u64 room_there = 0; room_there < sizeof header + frame.size(); used++)
      room_there += collected_[used].writable_bytes();
    const auto rest = collected_.begin() + static_cast<std::ptrdiff_t>(used);
    buffers.assign(std::make_move_iterator(collected_.begin()), std::make_move_iterator(rest));
    collected_.erase(collected_.begin(), rest);
  }
  fill(std::move(buffers), header, frame);
  return true;
}

// A driver that saw the first of several buffers alone would miss the others.
void Net::fill(std::vector<Request> buffers, NetHeader header, std::span<const std::byte> frame) {
  header.buffers = static_cast<u16>(buffers.size());
  std::vector<Given> all;
  for (u64 offset = sizeof header; Request & r : buffers) {
    const u64 n = std::min<u64>(frame.size(), r.writable_bytes() - offset);
    if (offset != 0) r.write(0, header);
    r.write(offset, frame.first(n));
    frame = frame.subspan(n);
    all.push_back({std::move(r), static_cast<u32>(offset + n)});
    offset = 0;
  }
  queue(receive).complete(all);
}

}  // namespace trapline::devices::virtio
