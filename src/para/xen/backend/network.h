// The back end of a network interface: netif (xen/io/netif.h) in front, the machine's virtio-net device behind. Frames are
// copied both ways, through the heap: each fits a buffer, since a front end without feature-sg makes none that is longer.
//
// Heap: a frame with the queue of each direction, then the buffers of both, 2 KiB each:
//   000 the one descriptor of the request   010 virtio-net's header   01c the Ethernet frame
#pragma once

#include <array>
#include <deque>

#include "para/xen/backend/back_end.h"
#include "para/xen/backend/shared_ring.h"
#include "para/xen/backend/virtio_function.h"

namespace trapline::para::xen {

class NetworkBackEnd final : public BackEnd {
 public:
  // The n-th interface; `heap`: kNetworkFrames.
  NetworkBackEnd(Domain& domain, GuestMemory& ram, VirtioFunction function, u32 index, u32 instance, Mfn heap);
  // False: the device does not work.
  bool begin(cpu::Vcpu& cpu, u8 vector);

 private:
  enum Queue : u16 { receive = 0, transmit = 1 };  // as virtio-net numbers them
  static constexpr u16 kBuffers = 64;              // each way
  using TxRing = SharedRing<netif_tx_sring, netif_tx_request, netif_tx_response>;
  using RxRing = SharedRing<netif_rx_sring, netif_rx_request, netif_rx_response>;
  struct Frame;  // a frame of the front end's, in pieces

  Nodes front_nodes() const override;
  Nodes back_nodes() const override;
  Result<void, std::string> connect(cpu::Vcpu& cpu) override;
  void disconnect(cpu::Vcpu& cpu) override;
  bool idle() const override { return true; }  // nothing of the guest's is held between two calls
  Result<void, std::string> serve(cpu::Vcpu& cpu) override;
  Result<void, std::string> complete(cpu::Vcpu& cpu) override;

  Result<void, std::string> send_all(cpu::Vcpu& cpu);
  bool gather(const netif_tx_request& first, Frame& frame);
  bool copy_out(cpu::Vcpu& cpu, Frame& frame, u16 slot);
  void take_done();
  void deliver(cpu::Vcpu& cpu);
  i16 copy_in(cpu::Vcpu& cpu, u32 ref, std::span<const u8> frame);
  void listen(u16 slot);  // a buffer for the device to fill
  Gpa memory(Queue queue, u16 slot) const;
  u8* buffer(Queue queue, u16 slot, u64 offset) const;
  VirtioDescriptor* descriptor(Queue queue, u16 slot) const;
  void tell_device(cpu::Vcpu& cpu, Queue queue);

  GuestMemory& ram_;
  VirtioFunction function_;
  const u32 index_;
  const Mfn heap_;
  std::array<VirtioQueue, 2> queues_;
  std::string mac_;
  TxRing tx_;
  RxRing rx_;
  Port port_ = 0;
  std::vector<u16> free_;                 // for frames of the guest's
  std::deque<VirtioQueue::Done> frames_;  // for the guest, which has had no room
};

}  // namespace trapline::para::xen
