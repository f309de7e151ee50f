#include "devices/virtio/ring.h"

namespace trapline::devices::virtio {

namespace {

constexpr u64 kBytes = sizeof(Descriptor);
static_assert(sizeof(Descriptor) == sizeof(PackedDescriptor));

// Each step takes one of `count`, so a loop ends.
bool add_linked(const Dma& dma, const std::byte* table, u32 count, Request& request) {
  for (u32 i = 0, left = count; left > 0; left--) {
    const auto d = copy_once<Descriptor>(table + i * kBytes);
    if (d.flags & descriptor_flag::indirect) return false;
    if (!request.add(dma, d.address, d.length, d.flags & descriptor_flag::write)) return false;
    if (!(d.flags & descriptor_flag::next)) return true;
    i = d.next;
    if (i >= count) return false;
  }
  return false;
}

bool add_all(const Dma& dma, const std::byte* table, u32 count, Request& request) {
  for (u32 i = 0; i < count; i++) {
    const auto d = copy_once<PackedDescriptor>(table + i * kBytes);
    if (d.flags & descriptor_flag::indirect) return false;
    if (!request.add(dma, d.address, d.length, d.flags & descriptor_flag::write)) return false;
  }
  return true;
}

}  // namespace

bool add_indirect(const Dma& dma, Gpa address, u32 length, u16 most, TableOrder order, Request& request) {
  const auto count = static_cast<u32>(length / kBytes);
  if (count == 0 || count > most || length % kBytes != 0) return false;
  const auto table = dma.bytes(address, length);
  if (!table) return false;
  return order == TableOrder::linked ? add_linked(dma, table->data(), count, request)
                                     : add_all(dma, table->data(), count, request);
}

}  // namespace trapline::devices::virtio
