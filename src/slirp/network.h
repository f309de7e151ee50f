// libslirp as --net user sets it up: the network that QEMU's users know, behind a stream of frames. One thread.
#pragma once

#include <poll.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "slirp/forward.h"
#include "slirp/frames.h"
#include "slirp/library.h"

namespace trapline::slirp {

class Network {
 public:
  // `socket` stays the caller's.
  Network(const Library& library, int socket, bool restricted, u32 mtu);
  ~Network();
  Network(const Network&) = delete;
  // What is wrong, or nothing.
  std::string forward(const Forward& forward);
  // Until the monitor goes.
  void run();
  // A frame of the guest's; what the network says to it goes to the socket with flush().
  void input(std::span<const u8> frame);
  void flush() { frames_.flush(); }

 private:
  struct Timer {
    SlirpTimerId id;
    void* argument;
    i64 due_ms = -1;  // -1: not set
  };
  static Network& self(void* opaque) { return *static_cast<Network*>(opaque); }
  static int add_poll(int fd, int events, void* opaque);
  static int ready_events(int index, void* opaque);
  u32 fire_timers();

  const Library& library_;
  int socket_;
  Frames frames_;
  SlirpCb callbacks_{};
  ::Slirp* slirp_ = nullptr;
  std::vector<pollfd> polled_;
  std::vector<std::unique_ptr<Timer>> timers_;
};

}  // namespace trapline::slirp
