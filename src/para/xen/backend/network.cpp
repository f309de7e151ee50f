#include "para/xen/backend/network.h"

#include "base/trace.h"
#include "para/xen/backend/checksum.h"

namespace trapline::para::xen {

namespace {

constexpr u64 kBufferBytes = 2048, kHeader = 0x10, kFrame = 0x1c;
constexpr u32 kHeaderBytes = kFrame - kHeader, kMostBytes = kBufferBytes - kFrame, kLeastBytes = 14;
constexpr u64 kVirtioMac = 1 << 5;
constexpr unsigned kMostPieces = XEN_NETIF_NR_SLOTS_MIN;
constexpr u64 kMostAtOnce = 4096;  // requests that one call takes

}  // namespace

struct NetworkBackEnd::Frame {
  std::array<netif_tx_request, kMostPieces> pieces;
  unsigned count = 0, extras = 0;
  bool right = true;  // so far
};

NetworkBackEnd::NetworkBackEnd(Domain& domain, GuestMemory& ram, VirtioFunction function, u32 index, u32 instance,
                               Mfn heap)
    : BackEnd{domain, "vif", index, Consumer::network, instance},
      ram_{ram},
      function_{function},
      index_{index},
      heap_{heap},
      queues_{VirtioQueue{ram, gpa(heap), kBuffers}, VirtioQueue{ram, gpa(heap + 1), kBuffers}} {
  static_assert(2 * kBuffers * kBufferBytes == (kNetworkFrames - 2) * kPageSize);
  for (u16 slot = 0; slot < kBuffers; slot++) free_.push_back(slot);
}

Gpa NetworkBackEnd::memory(Queue queue, u16 slot) const {
  return gpa(heap_ + 2).wrapping_add((u64{queue} * kBuffers + slot) * kBufferBytes);
}

u8* NetworkBackEnd::buffer(Queue queue, u16 slot, u64 offset) const {
  return reinterpret_cast<u8*>(ram_.host(memory(queue, slot).wrapping_add(offset)));
}

VirtioDescriptor* NetworkBackEnd::descriptor(Queue queue, u16 slot) const {
  return reinterpret_cast<VirtioDescriptor*>(buffer(queue, slot, 0));
}

bool NetworkBackEnd::begin(cpu::Vcpu& cpu, u8 vector) {
  if (!function_.begin(cpu, kVirtioMac)) return false;
  for (const Queue q : {receive, transmit}) function_.add_queue(cpu, q, queues_[q], vector);
  function_.go(cpu);
  for (unsigned i = 0; i < 6; i++) mac_ += fmt::format("{}{:02x}", i ? ":" : "", function_.config(cpu, i, 1));
  for (u16 slot = 0; slot < kBuffers; slot++) listen(slot);
  tell_device(cpu, receive);
  return true;
}

void NetworkBackEnd::tell_device(cpu::Vcpu& cpu, Queue queue) {
  if (queues_[queue].publish()) function_.ring(cpu, queue);
}

void NetworkBackEnd::listen(u16 slot) {
  *descriptor(receive, slot) = {memory(receive, slot).wrapping_add(kHeader), kBufferBytes - kHeader,
                                VirtioDescriptor::kWrite, 0};
  queues_[receive].offer(slot, memory(receive, slot), 1);
}

// -- xenstore

BackEnd::Nodes NetworkBackEnd::front_nodes() const { return {{"handle", std::to_string(index_)}, {"mac", mac_}}; }

BackEnd::Nodes NetworkBackEnd::back_nodes() const {
  Nodes nodes = {{"handle", std::to_string(index_)}, {"mac", mac_}, {"type", "vif"}, {"feature-rx-copy", "1"}};
  for (const char* absent :
       {"feature-rx-flip", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload",
        "feature-multicast-control", "feature-split-event-channels", "feature-ctrl-ring"})
    nodes.emplace_back(absent, "0");
  return nodes;
}

Result<void, std::string> NetworkBackEnd::connect(cpu::Vcpu& cpu) {
  if (auto protocol = check_protocol(cpu); !protocol) return protocol;
  if (front_value(cpu, "request-rx-copy").value_or("0") != "1")
    return Err{std::string("the front end asks for pages flipped, not copied")};
  const auto tx = front_number(cpu, "tx-ring-ref"), rx = front_number(cpu, "rx-ring-ref");
  if (!tx) return Err{tx.error()};
  if (!rx) return Err{rx.error()};
  if (auto port = connect_port(cpu, "event-channel", &port_); !port) return port;
  auto attached = tx_.attach(domain_, cpu, *tx);
  if (attached) {
    attached = rx_.attach(domain_, cpu, *rx);
    if (!attached) tx_.detach(domain_, cpu);
  }
  if (!attached) disconnect_port(port_);
  return attached;
}

void NetworkBackEnd::disconnect(cpu::Vcpu& cpu) {
  tx_.detach(domain_, cpu);
  rx_.detach(domain_, cpu);
  disconnect_port(port_);
  for (const VirtioQueue::Done& frame : std::exchange(frames_, {})) listen(frame.slot);
  tell_device(cpu, receive);
}

// -- From the guest

Result<void, std::string> NetworkBackEnd::serve(cpu::Vcpu& cpu) {
  take_done();
  auto sent = send_all(cpu);
  tell_device(cpu, transmit);
  deliver(cpu);
  const bool tx_news = tx_.publish(cpu), rx_news = rx_.publish(cpu);
  if (tx_news || rx_news) raise(port_);
  return sent;
}

Result<void, std::string> NetworkBackEnd::complete(cpu::Vcpu&) { return {}; }  // serve() follows, and does it

void NetworkBackEnd::take_done() {
  while (const auto done = queues_[transmit].take()) free_.push_back(done->slot);
  while (const auto done = queues_[receive].take()) frames_.push_back(*done);
}

Result<void, std::string> NetworkBackEnd::send_all(cpu::Vcpu& cpu) {
  for (u64 taken = 0; !free_.empty();) {
    if (tx_.overrun() || rx_.overrun()) return Err{std::string("a ring's producer is further than the ring is long")};
    if (taken > kMostAtOnce) return Err{std::string("nothing but frames that cannot be sent")};
    const auto first = tx_.take();
    if (!first) break;
    Frame frame;
    if (!gather(*first, frame)) return Err{std::string("a frame ends in the middle, or is in too many pieces")};
    taken += frame.count + frame.extras;
    const u16 slot = free_.back();
    const bool goes = copy_out(cpu, frame, slot);
    if (goes) free_.pop_back(), queues_[transmit].offer(slot, memory(transmit, slot), 1);
    for (unsigned i = 0; i < frame.count; i++)
      tx_.answer({frame.pieces[i].id, static_cast<i16>(frame.right ? NETIF_RSP_OKAY : NETIF_RSP_ERROR)});
    for (unsigned i = 0; i < frame.extras; i++) tx_.answer({0, NETIF_RSP_NULL});
  }
  return {};
}

// All requests of a frame, its first one's extras left out: nothing that they could ask for has been offered.
bool NetworkBackEnd::gather(const netif_tx_request& first, Frame& frame) {
  frame.pieces[frame.count++] = first;
  bool extra = first.flags & NETTXF_extra_info;
  while (extra) {
    const auto next = tx_.take();
    if (!next || ++frame.extras > kMostPieces) return false;
    netif_extra_info info;
    std::memcpy(&info, &*next, sizeof info);
    extra = info.flags & XEN_NETIF_EXTRA_FLAG_MORE;
    frame.right = false;
  }
  while (frame.pieces[frame.count - 1].flags & NETTXF_more_data) {
    const auto next = tx_.take();
    if (!next || frame.count == kMostPieces) return false;
    frame.pieces[frame.count++] = *next;
  }
  return true;
}

// The first request's size is that of the whole frame. False: there is nothing to be sent; `right` says whose fault it is.
bool NetworkBackEnd::copy_out(cpu::Vcpu& cpu, Frame& frame, u16 slot) {
  const u32 total = frame.pieces[0].size;
  u32 first = total;
  for (unsigned i = 1; i < frame.count; i++) {
    frame.right &= frame.pieces[i].size <= first;
    if (frame.right) first -= frame.pieces[i].size;
  }
  frame.right &= total >= kLeastBytes && total <= kMostBytes;
  u8* const start = buffer(transmit, slot, kFrame);
  u8* to = start;
  for (unsigned i = 0; frame.right && i < frame.count; i++) {
    const netif_tx_request& piece = frame.pieces[i];
    const u32 bytes = i == 0 ? first : piece.size;
    Domain::Held page{piece.gref, false};
    frame.right = u32{piece.offset} + bytes <= kPageSize && domain_.hold_grants(cpu, {&page, 1});
    if (!frame.right) break;
    std::memcpy(to, domain_.host(page.frame) + piece.offset, bytes);
    to += bytes;
    domain_.release_grants(cpu, {&page, 1});
  }
  if (!frame.right) return false;
  if ((frame.pieces[0].flags & NETTXF_csum_blank) && !fill_checksum({start, total})) return false;
  std::memset(buffer(transmit, slot, kHeader), 0, kHeaderBytes);
  *descriptor(transmit, slot) = {memory(transmit, slot).wrapping_add(kHeader), kHeaderBytes + total, 0, 0};
  return true;
}

// -- To the guest

// Each into the next page that the front end has given; a frame for which there is none waits.
void NetworkBackEnd::deliver(cpu::Vcpu& cpu) {
  while (!frames_.empty()) {
    const auto request = rx_.take();
    if (!request) break;
    const VirtioQueue::Done done = frames_.front();
    frames_.pop_front();
    const u32 bytes = std::min<u32>(done.written, kBufferBytes - kHeader);
    i16 status = NETIF_RSP_ERROR;
    if (bytes > kHeaderBytes)
      status = copy_in(cpu, request->gref, {buffer(receive, done.slot, kFrame), bytes - kHeaderBytes});
    rx_.answer({request->id, 0, 0, status});
    listen(done.slot);
  }
  tell_device(cpu, receive);
}

// How many bytes, or what is wrong with the page.
i16 NetworkBackEnd::copy_in(cpu::Vcpu& cpu, u32 ref, std::span<const u8> frame) {
  Domain::Held page{ref, true};
  if (!domain_.hold_grants(cpu, {&page, 1})) return NETIF_RSP_ERROR;
  std::memcpy(domain_.host(page.frame), frame.data(), frame.size());
  if (cpu.code) cpu.code->written(page.frame.raw, 0, frame.size());
  domain_.release_grants(cpu, {&page, 1});
  return static_cast<i16>(frame.size());
}

}  // namespace trapline::para::xen
