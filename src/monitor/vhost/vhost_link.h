// The connection to a vhost-user back end: one message at a time, each bounded in size and in time. The back end is not
// believed: an answer that is late, or not the one that was asked for, ends the connection, and all that is asked after
// that fails at once.
//
// One thread at a time, but for hurry(). Descriptors that a back end sends are not received.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "monitor/files.h"
#include "monitor/vhost/vhost_protocol.h"

namespace trapline::monitor::vhost {

class Link {
 public:
  explicit Link(Fd socket);

  bool open() const { return static_cast<bool>(socket_); }
  int fd() const { return socket_.get(); }
  // Why it is not: for the user, behind the back end's name.
  const std::string& why() const { return why_; }

  // False: the link is closed. With REPLY_ACK it has been done when this returns.
  bool tell(Command command, std::span<const std::byte> payload, std::span<const int> descriptors = {});
  bool tell(Command command) { return tell(command, {}); }
  template <class Payload>
  bool tell(Command command, const Payload& payload, std::span<const int> descriptors = {}) {
    return tell(command, std::as_bytes(std::span{&payload, 1}), descriptors);
  }
  std::optional<u64> ask(Command command);
  // GET_VRING_BASE: the ring has stopped, at that index.
  std::optional<u32> stop_ring(u32 index);
  std::optional<std::vector<u8>> ask_config(u32 bytes);
  void acknowledge(bool on) { acknowledges_ = on; }  // REPLY_ACK was negotiated

  // Something has come that nobody asked for: the end, or nonsense.
  void heard_unasked();
  void close(std::string why);
  // Another connection in the place of this one, which is closed.
  void adopt(Link&& fresh);

  // Any thread: the VM ends, and nobody waits for a slow back end; or does so again.
  void hurry(bool on) { hurried_ = on; }
  static std::vector<int> calls();

 private:
  using Clock = std::chrono::steady_clock;
  bool send(Command command, std::span<const std::byte> payload, std::span<const int> descriptors, bool wants_reply);
  bool await(short events, Clock::time_point begun);
  std::optional<std::vector<std::byte>> reply(Command command, std::size_t least, std::size_t most);
  bool receive(std::span<std::byte> to, Clock::time_point begun);

  Fd socket_;
  std::string why_;
  bool acknowledges_ = false;
  std::atomic<bool> hurried_{false};
};

// Connects; waits while the back end's backlog is full, but not for ever.
Result<Fd, VmError> connect_to_back_end(const std::string& path, VmError::About about);

}  // namespace trapline::monitor::vhost
