#include "devices/virtio/vsock.h"

namespace trapline::devices::virtio {

Vsock::Vsock(u64 cid, VsockPeer& peer)
    : Backend{{.type = 19, .name = "virtio-vsock", .class_code = 0x078000, .queues = {128, 128, 8}}},
      cid_{cid},
      peer_{peer} {}

void Vsock::serve(unsigned index) {
  if (index == to_guest) {
    queue(to_guest).listen();
    return peer_.may_send();
  }
  if (index != from_guest) return;  // buffers for events wait in their ring: none has come
  Queue& q = queue(from_guest);
  serve_all(q, [&](Request&& request) {
    take(request);
    q.complete(std::move(request), 0);
  });
  q.signal();
}

// What has no form is lost, as on a wire.
void Vsock::take(const Request& request) {
  VsockPacket packet;
  if (!request.read(0, packet.header)) return;
  const VsockHeader& h = packet.header;
  const u32 length = h.op == VsockHeader::data ? h.length : 0;
  if (h.from_cid != cid_ || length > kMostData || length > request.readable_bytes() - sizeof h) return;
  packet.data.resize(length);
  request.read(sizeof h, std::as_writable_bytes(std::span{packet.data}));
  packet.header.length = length;
  peer_.received(std::move(packet));
}

Vsock::Sent Vsock::send(VsockPacket& packet) {
  Queue& q = queue(to_guest);
  auto request = q.next();
  if (!request && q.listen()) request = q.next();
  if (!request) return Sent::nothing;
  VsockHeader header = packet.header;
  const u64 room = request->writable_bytes();
  const bool useless = room < sizeof header || (room == sizeof header && !packet.data.empty());
  if (useless) {
    q.finish(std::move(*request), 0);
    return Sent::part;
  }
  const std::size_t bytes = std::min<std::size_t>(packet.data.size(), room - sizeof header);
  header.length = static_cast<u32>(bytes);
  request->write(0, header);
  request->write(sizeof header, std::as_bytes(std::span{packet.data}.first(bytes)));
  q.finish(std::move(*request), static_cast<u32>(sizeof header + bytes));
  packet.data.erase(packet.data.begin(), packet.data.begin() + static_cast<std::ptrdiff_t>(bytes));
  return packet.data.empty() ? Sent::all : Sent::part;
}

}  // namespace trapline::devices::virtio
