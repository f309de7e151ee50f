#include "devices/virtio/request.h"

#include <algorithm>
#include <limits>

#include "devices/virtio/queue.h"

namespace trapline::devices::virtio {

namespace {

// Calls `use` with each piece of [offset, offset + length); the caller has seen that there are so many.
template <class Use>
void for_pieces(std::span<const Segment> segments, u64 offset, u64 length, Use use) {
  for (const Segment& segment : segments) {
    if (length == 0) return;
    if (offset >= segment.bytes.size()) {
      offset -= segment.bytes.size();
      continue;
    }
    const u64 n = std::min<u64>(length, segment.bytes.size() - offset);
    use(segment.bytes.subspan(offset, n));
    length -= n;
    offset = 0;
  }
}

bool within(u64 offset, u64 length, u64 total) { return offset <= total && length <= total - offset; }

}  // namespace

Request& Request::operator=(Request&& o) noexcept {
  if (this == &o) return *this;
  give_up();
  queue_ = std::exchange(o.queue_, nullptr);
  readable_ = std::move(o.readable_);
  writable_ = std::move(o.writable_);
  readable_bytes_ = std::exchange(o.readable_bytes_, 0);
  writable_bytes_ = std::exchange(o.writable_bytes_, 0);
  id = o.id;
  descriptors = o.descriptors;
  return *this;
}

void Request::give_up() {
  if (queue_ != nullptr) std::exchange(queue_, nullptr)->drop();
}

bool Request::read(u64 offset, std::span<std::byte> to) const {
  if (!within(offset, to.size(), readable_bytes_)) return false;
  for_pieces(readable_, offset, to.size(), [&to](std::span<std::byte> piece) {
    std::memcpy(to.data(), piece.data(), piece.size());
    to = to.subspan(piece.size());
  });
  asm volatile("" : : : "memory");  // the copy is what is looked at
  return true;
}

bool Request::write(u64 offset, std::span<const std::byte> from) {
  if (!within(offset, from.size(), writable_bytes_)) return false;
  for_pieces(writable_, offset, from.size(), [&from](std::span<std::byte> piece) {
    std::memcpy(piece.data(), from.data(), piece.size());
    from = from.subspan(piece.size());
  });
  return true;
}

// Lengths are told in 32 bits: a chain may not be longer than that (2.7.4).
bool Request::add(const Dma& dma, Gpa address, u32 length, bool device_writes) {
  constexpr u64 kMost = std::numeric_limits<u32>::max();
  if (!device_writes && writable_bytes_ + writable_.size() != 0) return false;
  if (length == 0) return true;
  const auto bytes = dma.bytes(address, length);
  if (!bytes || length > kMost - readable_bytes_ - writable_bytes_) return false;
  (device_writes ? writable_ : readable_).push_back({address, *bytes});
  (device_writes ? writable_bytes_ : readable_bytes_) += length;
  return true;
}

}  // namespace trapline::devices::virtio
