// The host's side of virtio-vsock: each connection is one of a Unix socket's, by the convention of Firecracker and Cloud
// Hypervisor.
//
//   host to guest   connect to PATH, say "CONNECT port\n"; once the guest has accepted, "OK port\n" comes back
//   guest to host   to (2, port): whoever listens on PATH_port
//
// A thread of its own owns all connections; the device's worker hands it packets. Credit (VIRTIO 1.2, 5.10.6.3) goes both
// ways: the guest may send what kRoom has room for, and nothing is read from a socket that the guest has no room for.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "base/result.h"
#include "devices/virtio/vsock.h"
#include "machine/config.h"
#include "monitor/files.h"

namespace trapline::monitor {

class VsockSockets final : public devices::virtio::VsockPeer {
 public:
  using Packet = devices::virtio::VsockPacket;
  using Header = devices::virtio::VsockHeader;
  using Sent = devices::virtio::Vsock::Sent;
  using Send = std::function<Sent(Packet&)>;  // Vsock::send()
  static constexpr u32 kRoom = 256 * KiB;     // for what a guest sends on a connection
  static constexpr std::size_t kMostConnections = 1024;

  // Listens. Error: one line that names the option and the remedy.
  static Result<std::unique_ptr<VsockSockets>, VmError> create(const machine::VsockConfig& config);
  ~VsockSockets() override;

  void attach(Send send) { send_ = std::move(send); }
  u64 cid() const { return config_.cid; }

  // The thread that owns the connections: until stop().
  void run();
  void start() { stopping_ = false; }
  void stop();
  static std::vector<int> calls();

  void received(Packet&& packet) override;
  void may_send() override;
  void started() override;

 private:
  using Clock = std::chrono::steady_clock;
  using Key = std::pair<u32, u32>;  // the host's port, the guest's
  struct Connection {
    enum class State : u8 { greets, requested, open, closing };
    Fd socket;
    State state = State::greets;
    std::string greeting;
    std::deque<u8> to_host;       // from the guest, not yet taken by the socket
    u32 forwarded = 0, told = 0;  // of what the guest has sent; what it knows of that
    u32 sent = 0;                 // to the guest
    u32 room = 0, taken = 0;      // the guest's: its buffer, and what it has passed on
    bool guest_sends = true, guest_receives = true, host_sends = true;
    bool wants_credit = false;  // it has been asked for
    Clock::time_point until{};  // closing: the guest's last word is not waited for any longer
    u32 credit() const { return sent - taken < room ? room - (sent - taken) : 0; }
    bool reads() const {
      return state == State::greets || (state == State::open && host_sends && guest_receives && credit() != 0);
    }
    bool writes() const { return state == State::open && !to_host.empty(); }
  };

  VsockSockets(machine::VsockConfig config, Fd listener, Fd wake)
      : config_{std::move(config)}, listener_{std::move(listener)}, wake_{std::move(wake)} {}
  void take_inbox();
  void handle(Packet&& packet);
  void handle_open(const Key& key, Connection& c, Packet&& packet);
  void connect_out(const Key& key, const Header& header);
  void accept_one();
  void greet(const Key& key, Connection& c);
  void read_some(const Key& key, Connection& c);
  void flush(const Key& key, Connection& c);
  void settle_shutdown(const Key& key, Connection& c);
  void close(const Key& key);
  void tell(const Key& key, Connection* c, Header::Op op, u32 flags = 0, std::vector<u8> data = {});
  void deliver();
  void end_those_that_are_late();
  int wait(std::vector<Key>& ready_in, std::vector<Key>& ready_out);

  const machine::VsockConfig config_;
  Fd listener_, wake_;
  Send send_;
  std::atomic<bool> stopping_{false}, restarted_{false};
  std::mutex lock_;  // the inbox
  std::condition_variable room_;
  std::deque<Packet> inbox_;
  // -- The owning thread's.
  std::map<Key, Connection> connections_;
  std::deque<Packet> outbox_;
  bool full_ = false;  // the guest has no room for outbox_.front()
  u32 next_port_ = 1u << 30;
};

}  // namespace trapline::monitor
