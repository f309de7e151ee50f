// The back end of a disk: blkif (xen/io/blkif.h) in front, the machine's virtio-blk device behind. Nothing is copied: the
// device reads and writes the frames that the front end has granted, which are held meanwhile.
//
// Heap: one frame with the queue, then one KiB for each request:
//   000 header of the request   010 status   018 range of a discard   040 table of descriptors
#pragma once

#include <array>

#include "para/xen/backend/back_end.h"
#include "para/xen/backend/shared_ring.h"
#include "para/xen/backend/virtio_function.h"

namespace trapline::para::xen {

class BlockBackEnd final : public BackEnd {
 public:
  static constexpr unsigned kMostSegments = 32;  // of an indirect request
  static constexpr u8 kNoVector = 0;

  // The n-th disk, xvda, xvdb, ...; `heap`: kDiskFrames.
  BlockBackEnd(Domain& domain, GuestMemory& ram, VirtioFunction function, u32 index, u32 instance, Mfn heap);
  // False: the device does not work.
  bool begin(cpu::Vcpu& cpu, u8 vector);

 private:
  using Ring = SharedRing<blkif_sring, blkif_request, blkif_response>;
  static constexpr u32 kSlots = Ring::entries();
  struct Slot {
    u64 id = 0;
    u8 operation = 0;
    bool busy = false;
    u32 segments = 0;
    std::array<Domain::Held, kMostSegments> grants{};
  };
  struct Transfer {
    bool writes;  // to the disk
    u64 sector;
    u32 count;
    std::array<blkif_request_segment, kMostSegments> segments;
  };
  struct Header;  // of virtio-blk

  Nodes front_nodes() const override;
  Nodes back_nodes() const override;
  Result<void, std::string> connect(cpu::Vcpu& cpu) override;
  void disconnect(cpu::Vcpu& cpu) override;
  bool idle() const override { return in_flight_ == 0; }
  Result<void, std::string> serve(cpu::Vcpu& cpu) override;
  Result<void, std::string> complete(cpu::Vcpu& cpu) override;

  void take(cpu::Vcpu& cpu, const blkif_request& request);
  i16 start(cpu::Vcpu& cpu, const blkif_request& request, u16 slot);
  i16 start_transfer(cpu::Vcpu& cpu, const Transfer& transfer, u16 slot);
  i16 start_indirect(cpu::Vcpu& cpu, const blkif_request_indirect& request, u16 slot);
  i16 start_discard(const blkif_request_discard& request, u16 slot);
  void offer(u16 slot, const Header& header, std::span<const VirtioDescriptor> data);
  void answer(u64 id, u8 operation, i16 status);
  void publish(cpu::Vcpu& cpu);
  Gpa memory(u16 slot) const;
  template <class T>
  T* at(u16 slot, u64 offset) const;

  GuestMemory& ram_;
  VirtioFunction function_;
  const u32 index_;
  const Mfn heap_;
  VirtioQueue queue_;
  u64 sectors_ = 0;
  Ring ring_;
  Port port_ = 0;
  std::array<Slot, kSlots> slots_{};
  u32 in_flight_ = 0;
};

}  // namespace trapline::para::xen
