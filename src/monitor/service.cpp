#include "monitor/service.h"

namespace trapline::monitor {

namespace {

using channel::Request;
using channel::RequestKind;

bool port_size(unsigned size) { return size == 1 || size == 2 || size == 4; }
bool mmio_size(unsigned size) { return size >= 1 && size <= 8; }
bool bulk_fits(const Request& r) { return port_size(r.size) && r.count <= channel::kBulkBytes / r.size; }

void read_many(machine::Chipset& chipset, const Request& r, u8* bulk) {
  for (u32 i = 0; i < r.count; i++) {
    const u32 v = chipset.port_read(r.port, r.size);
    std::memcpy(bulk + u64{i} * r.size, &v, r.size);
  }
}

void write_many(machine::Chipset& chipset, const Request& r, const u8* bulk) {
  for (u32 i = 0; i < r.count; i++) {
    u32 v = 0;
    std::memcpy(&v, bulk + u64{i} * r.size, r.size);
    chipset.port_write(r.port, r.size, v);
  }
}

}  // namespace

bool serve(machine::Chipset& chipset, const Request& r, u8* bulk, u64* value) {
  *value = ~u64{0};
  switch (static_cast<RequestKind>(r.kind)) {
    case RequestKind::port_read:
      if (!port_size(r.size)) return false;
      *value = chipset.port_read(r.port, r.size);
      return true;
    case RequestKind::port_write:
      if (!port_size(r.size)) return false;
      chipset.port_write(r.port, r.size, static_cast<u32>(r.value));
      return true;
    case RequestKind::port_read_many:
      if (!bulk_fits(r)) return false;
      read_many(chipset, r, bulk);
      return true;
    case RequestKind::port_write_many:
      if (!bulk_fits(r)) return false;
      write_many(chipset, r, bulk);
      return true;
    case RequestKind::mmio_read:
      if (!mmio_size(r.size)) return false;
      *value = chipset.mmio_read(r.address, r.size);
      return true;
    case RequestKind::mmio_write:
      if (!mmio_size(r.size)) return false;
      chipset.mmio_write(r.address, r.size, r.value);
      return true;
    case RequestKind::pic_acknowledge:
      *value = chipset.pic_acknowledge();
      return true;
    case RequestKind::ioapic_eoi:
      chipset.ioapic_eoi(static_cast<u8>(r.value));
      return true;
    case RequestKind::numeric_error:
      chipset.numeric_error();
      return true;
    case RequestKind::tick:
    case RequestKind::idle:
      return true;  // the caller keeps time
  }
  return false;
}

}  // namespace trapline::monitor
