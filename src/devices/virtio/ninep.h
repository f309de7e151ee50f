// virtio-9p (VIRTIO 1.2 names it, the layout is Linux's, include/uapi/linux/virtio_9p.h): messages of 9P in requests,
// each copied to a server and its answer copied back. What they mean is the server's business.
#pragma once

#include <memory>
#include <string>

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

// The other side: one request at a time.
struct MessageServer {
  virtual ~MessageServer() = default;
  // Where a request goes before ask().
  virtual std::span<u8> room() = 0;
  // The answer to the first `length` bytes of it. Empty: there is none, for the server is gone. May wait.
  virtual std::span<const u8> ask(std::size_t length) = 0;
  // An answer that ask() did not wait for is waited for.
  virtual void settle() = 0;
};

class NineP final : public Backend {
 public:
  // `server` outlives the device. `tag` is what the driver mounts; at most kLongestTag bytes.
  NineP(std::string tag, MessageServer& server);
  static constexpr std::size_t kLongestTag = 31;

  void read_config(u64 offset, std::span<u8> out) const override;
  void serve(unsigned queue) override;
  void settle() override { server_.settle(); }

 private:
  u32 answer(Request& request);
  MessageServer& server_;
  struct Config {
    u16 length;
    char tag[kLongestTag + 1];
  } config_{};
};

}  // namespace trapline::devices::virtio
