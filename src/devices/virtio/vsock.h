// The socket device (VIRTIO 1.2, 5.10): packets between the guest and its host, in rings. Connections and their credit
// are the host's business (monitor/vsock/): here packets are checked for their form, and no more.
#pragma once

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

struct [[gnu::packed]] VsockHeader {
  enum Op : u16 { request = 1, response = 2, reset = 3, shutdown = 4, data = 5, credit_update = 6, credit_request = 7 };
  static constexpr u16 kStream = 1;
  static constexpr u32 kReceivesNoMore = 1, kSendsNoMore = 2;  // flags of `shutdown`

  u64 from_cid = 0, to_cid = 0;
  u32 from_port = 0, to_port = 0;
  u32 length = 0;
  u16 type = kStream, op = 0;
  u32 flags = 0;
  u32 buffer = 0, forwarded = 0;  // the sender's: its room, and how much it has passed on so far
};
static_assert(sizeof(VsockHeader) == 44);

struct VsockPacket {
  VsockHeader header;
  std::vector<u8> data;  // header.length of it
};

// The other side.
struct VsockPeer {
  virtual ~VsockPeer() = default;
  // The worker's thread; may wait.
  virtual void received(VsockPacket&& packet) = 0;
  // The guest has made room: Vsock::send() may have returned false. The worker's thread.
  virtual void may_send() = 0;
  // The driver starts over: there are no connections. Under the machine's lock; must not wait.
  virtual void started() = 0;
};

class Vsock final : public Backend {
 public:
  static constexpr u64 kHostCid = 2;
  static constexpr u32 kMostData = 64 * KiB;  // of one packet

  // `peer` outlives the device.
  Vsock(u64 cid, VsockPeer& peer);

  // A packet for the guest, from one thread at a time. `nothing`: the guest has no room now; may_send() follows. `part`: its
  // buffer was smaller than the data, of which what went is gone from the packet.
  enum class Sent { nothing, part, all };
  Sent send(VsockPacket& packet);
  u64 cid() const { return cid_; }

  void read_config(u64 offset, std::span<u8> out) const override { copy_config(cid_, offset, out); }
  void start(u64) override { peer_.started(); }
  void serve(unsigned queue) override;

 private:
  enum Queues : unsigned { to_guest = 0, from_guest = 1, events = 2 };
  void take(const Request& request);
  const u64 cid_;
  VsockPeer& peer_;
};

}  // namespace trapline::devices::virtio
