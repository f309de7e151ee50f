// One request of a driver: the buffers of a descriptor chain, each looked up once and known to be RAM. Their contents
// stay the guest's: it may rewrite them at any time, so copy first (read()), then check the copy.
#pragma once

#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/addr.h"
#include "devices/virtio/dma.h"
#include "devices/virtio/layout.h"

namespace trapline::devices::virtio {

class Queue;

struct Segment {
  Gpa at;
  std::span<std::byte> bytes;
};

// Movable. Goes back by Queue::complete(); one that is dropped instead is given back as never answered, which is for
// queues that are being reset.
class Request {
 public:
  Request() = default;
  Request(Request&& o) noexcept { *this = std::move(o); }
  Request& operator=(Request&& o) noexcept;
  ~Request() { give_up(); }

  // What the driver wrote for the device, then what the device may write: in the chain's order, none of them empty.
  std::span<const Segment> readable() const { return readable_; }
  std::span<const Segment> writable() const { return writable_; }
  u64 readable_bytes() const { return readable_bytes_; }
  u64 writable_bytes() const { return writable_bytes_; }

  // Copies [offset, offset + to.size()) of the readable bytes. False: there are not so many, and nothing was copied.
  bool read(u64 offset, std::span<std::byte> to) const;
  template <class T>
  requires std::is_trivially_copyable_v<T>
  bool read(u64 offset, T& value) const { return read(offset, std::as_writable_bytes(std::span{&value, 1})); }
  // The same into the writable bytes.
  bool write(u64 offset, std::span<const std::byte> from);
  template <class T>
  requires std::is_trivially_copyable_v<T>
  bool write(u64 offset, const T& value) { return write(offset, std::as_bytes(std::span{&value, 1})); }

  // -- For the ring that makes it.
  // Adds the buffer of a descriptor. False: it is not RAM, or readable after writable, or too much.
  bool add(const Dma& dma, Gpa address, u32 length, bool device_writes);
  u16 id = 0;           // the chain's head, or the packed ring's buffer id
  u16 descriptors = 0;  // of the ring, that it takes

 private:
  friend class Queue;
  void give_up();
  Queue* queue_ = nullptr;
  std::vector<Segment> readable_, writable_;
  u64 readable_bytes_ = 0, writable_bytes_ = 0;
};

// One that the device has done with, and of which it has written the first `written` bytes.
struct Given {
  Request request;
  u32 written = 0;
};

}  // namespace trapline::devices::virtio
