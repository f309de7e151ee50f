// virtio-console with several ports (VIRTIO 1.2, 5.3): byte streams with names, which Linux has as
// /dev/vportNpM. No port is a console in Linux's sense: no terminal's rules lie in between.
#pragma once

#include <deque>
#include <mutex>
#include <string>

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

// The other end of a port.
struct PortEnd {
  virtual ~PortEnd() = default;
  // What the guest has written, some bytes of it. On the device's worker thread; may wait.
  virtual void received(std::span<const std::byte> bytes) = 0;
  // The guest has opened the port, or given room for more: send() may have gone short. Any thread; must not wait.
  virtual void may_send() = 0;
};

class Console final : public Backend {
 public:
  struct Port {
    std::string name;
    PortEnd& end;  // outlives the device
  };
  explicit Console(std::vector<Port> ports);

  // Any thread. How many of the bytes the guest has taken; may_send() tells when more may be.
  std::size_t send(unsigned port, std::span<const u8> bytes);

  void read_config(u64 offset, std::span<u8> out) const override;
  void start(u64 features) override;
  std::vector<u8> save() const override;
  void restore(std::span<const u8> state, u64 features) override;
  void serve(unsigned queue) override;

 private:
  struct Control {
    u32 port;
    u16 event;
    u16 value;
  };
  static constexpr unsigned kControlIn = 2, kControlOut = 3;  // to the guest, from the guest
  static unsigned in_queue(unsigned port) { return port == 0 ? 0 : 2 + 2 * port; }
  static unsigned out_queue(unsigned port) { return in_queue(port) + 1; }

  void receive(unsigned port);
  void receive_control();
  void obey(const Control& message);
  void tell(const Control& message, std::string_view text = {});
  void tell_waiting();
  bool take_waiting(std::vector<u8>& message);

  std::vector<Port> ports_;
  mutable std::mutex lock_;              // around what follows
  std::vector<bool> open_;               // by the guest
  std::deque<std::vector<u8>> waiting_;  // control messages that the guest has no room for yet
  std::mutex telling_;                   // one tell_waiting() at a time; before lock_
  std::mutex sending_;                   // one send() at a time keeps the bytes in order
};

}  // namespace trapline::devices::virtio
