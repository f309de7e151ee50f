// A virtio device whose back end is a process of somebody else's, by vhost-user: docs/virtio.md, "Back ends by
// vhost-user". Guest and back end share no ring: requests are taken from the guest's as every device takes them, checked,
// and passed on by a ring of our own (shadow_ring.h); what comes back goes through Queue::complete, so that engines have
// forgotten overwritten code before the guest hears of it.
//
// Threads: the device's worker passes requests on. One thread of its own, run(), has the connection, sets rings up and
// stops them, and takes what comes back. A lane's lock is held while requests are taken, and taken by nobody who holds
// the machine's.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>

#include "base/guest_memory.h"
#include "monitor/vhost/shadow_ring.h"
#include "monitor/vhost/vhost_kinds.h"
#include "monitor/vhost/vhost_peer.h"

namespace trapline::monitor::vhost {

class VhostDevice final : public devices::virtio::Backend {
 public:
  using Complain = std::function<void(const std::string&)>;
  // Throws HostRefused.
  VhostDevice(std::shared_ptr<Peer> peer, std::unique_ptr<DeviceKind> kind, Complain complain);
  ~VhostDevice() override;

  void read_config(u64 offset, std::span<u8> out) const override;
  void start(u64 features) override;
  void stop() override;
  void serve(unsigned queue) override { pass_on(queue); }
  void settle() override;

  // -- The host's. The VM is powered on: its RAM, which the back end gets to see.
  void attach_ram(int fd, u64 bytes);
  void begin();  // before run()
  void run();    // until end()
  void end();    // any thread
  static std::vector<int> calls() { return Link::calls(); }

 private:
  struct Lane {
    explicit Lane(ShadowRing r) : ring{std::move(r)} {}
    std::mutex lock;  // all that follows
    ShadowRing ring;
    bool on = false;
    std::optional<devices::virtio::Request> waiting;  // for room in the ring
    Fd kick, call;                                    // eventfds; they stay
  };
  struct Wanted {
    u64 life = 0;  // counts starts and stops
    bool on = false;
    u64 features = 0;
    bool operator==(const Wanted&) const = default;
  };

  void pass_on(unsigned queue);
  void fail_all(unsigned queue);
  bool take_back(unsigned queue);
  void take_all_back();
  void follow(const Wanted& wanted);
  void start_rings(u64 features);
  bool set_up(u64 features);
  bool set_up_ring(u32 index);
  bool send_memory();
  void stop_rings();
  void drain();
  void await_events(int milliseconds);
  void lose();
  void rejoin();
  void complain_of_loss();
  u32 held() const;
  Wanted wanted() const;
  void want(bool on, u64 features);
  void wake();

  const std::shared_ptr<Peer> peer_;
  const std::unique_ptr<DeviceKind> kind_;
  const Complain complain_;
  Fd wake_, rings_;  // an eventfd; the shared memory of all rings
  std::byte* memory_ = nullptr;
  std::deque<Lane> lanes_;
  Fd ram_;
  u64 ram_bytes_ = 0;
  mutable std::mutex wanting_;  // innermost
  Wanted wanted_;               // under wanting_
  std::atomic<bool> ending_{false}, lost_{false};
  // -- run()'s
  Wanted running_;
  bool memory_known_ = false, told_ = false;
};

}  // namespace trapline::monitor::vhost
