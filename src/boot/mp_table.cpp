#include "boot/mp_table.h"

#include <cstring>
#include <string_view>
#include <vector>

#include "base/invariant.h"
#include "boot/firmware.h"
#include "devices/board_map.h"

namespace trapline::boot {

namespace {

namespace map = devices::map;

using Table = std::vector<u8>;

constexpr u32 kMostCpus = 254;
constexpr u8 kSpecRevision = 4;  // 1.4
constexpr u8 kPciBus = 0, kIsaBus = 1, kIoApicId = 0;
enum Entry : u8 { processor = 0, bus = 1, ioapic = 2, io_interrupt = 3, local_interrupt = 4 };
enum InterruptType : u8 { vectored = 0, nmi = 1, extint = 3 };
constexpr u16 kConforms = 0, kActiveHighLevel = 0x000d;  // po, el: section 4.3.4

void put(Table& t, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) t.push_back(static_cast<u8>(value >> 8 * i));
}
void put(Table& t, std::string_view text) { t.insert(t.end(), text.begin(), text.end()); }

u8 negated_sum(const Table& t) {
  u8 sum = 0;
  for (const u8 b : t) sum = static_cast<u8>(sum + b);
  return static_cast<u8>(-sum);
}

class Entries {
 public:
  void add_processor(u8 apic_id) {
    constexpr u8 kEnabled = 1, kBootstrap = 2;
    begin(processor);
    put(bytes, apic_id, 1);
    put(bytes, 0x14, 1);  // local APIC version
    put(bytes, kEnabled | (apic_id == 0 ? kBootstrap : 0), 1);
    put(bytes, 0x600, 4);  // family 6
    put(bytes, 0x201, 4);  // FPU, APIC: CPUID has the rest
    put(bytes, 0, 8);
  }
  void add_bus(u8 id, std::string_view name) {  // six characters
    begin(bus);
    put(bytes, id, 1);
    put(bytes, name);
  }
  void add_ioapic() {
    begin(ioapic);
    put(bytes, kIoApicId, 1);
    put(bytes, 0x20, 1);  // version
    put(bytes, 1, 1);     // enabled
    put(bytes, map::ioapic.raw, 4);
  }
  void add_interrupt(Entry kind, InterruptType type, u16 flags, u8 source_bus, u8 source, u8 destination, u8 pin) {
    begin(kind);
    put(bytes, type, 1);
    put(bytes, flags, 2);
    put(bytes, source_bus, 1);
    put(bytes, source, 1);
    put(bytes, destination, 1);
    put(bytes, pin, 1);
  }
  Table bytes;
  u16 count = 0;

 private:
  void begin(Entry kind) {
    put(bytes, kind, 1);
    count++;
  }
};

// In the order of their types, as section 4.3 asks.
Entries entries(u32 cpus) {
  Entries e;
  for (u32 i = 0; i < cpus; i++) e.add_processor(static_cast<u8>(i));
  e.add_bus(kPciBus, "PCI   ");
  e.add_bus(kIsaBus, "ISA   ");
  e.add_ioapic();
  for (u8 irq = 0; irq < 16; irq++) {
    if (irq == 2) continue;  // the cascade
    const u16 flags = irq == map::sci_irq ? kActiveHighLevel : kConforms;
    e.add_interrupt(io_interrupt, vectored, flags, kIsaBus, irq, kIoApicId, irq == 0 ? 2 : irq);
  }
  for (u32 slot = 1; slot < 32; slot++)
    for (u32 pin = 0; pin < 4; pin++)
      e.add_interrupt(io_interrupt, vectored, kConforms, kPciBus, static_cast<u8>(slot << 2 | pin), kIoApicId,
                      static_cast<u8>(devices::pci_intx_gsi(slot, pin)));
  e.add_interrupt(local_interrupt, extint, kConforms, kIsaBus, 0, 0, 0);  // the 8259's INTR: LINT0 of the first
  e.add_interrupt(local_interrupt, nmi, kConforms, kIsaBus, 0, 0xff, 1);
  return e;
}

Table configuration(const Entries& e) {
  constexpr std::size_t kHeader = 44, kChecksumAt = 7;
  Table t;
  put(t, "PCMP");
  put(t, kHeader + e.bytes.size(), 2);
  put(t, kSpecRevision, 1);
  put(t, 0, 1);  // checksum
  put(t, "TRAPLINE");
  put(t, "VIRTUAL PC  ");
  put(t, 0, 4);  // OEM table
  put(t, 0, 2);
  put(t, e.count, 2);
  put(t, map::lapic.raw, 4);
  put(t, 0, 2);  // no extended entries
  put(t, 0, 2);
  INVARIANT(t.size() == kHeader, "MP header of {} bytes", t.size());
  t.insert(t.end(), e.bytes.begin(), e.bytes.end());
  t[kChecksumAt] = negated_sum(t);
  return t;
}

Table floating_pointer(u64 table) {
  constexpr std::size_t kChecksumAt = 10;
  Table t;
  put(t, "_MP_");
  put(t, table, 4);
  put(t, 1, 1);  // length in paragraphs
  put(t, kSpecRevision, 1);
  put(t, 0, 1);  // checksum
  put(t, 0, 1);  // a table follows, no default configuration
  put(t, 0, 4);  // no IMCR: virtual wire mode
  t[kChecksumAt] = negated_sum(t);
  return t;
}

void write(GuestMemory& ram, Gpa at, const Table& table) {
  INVARIANT(table.size() <= kFirmwareCode - at, "the MP table does not fit below {}", kFirmwareCode);
  const auto bytes = ram.bytes(at, table.size());
  INVARIANT(bytes.has_value(), "no RAM for the MP table at {}", at);
  std::memcpy(bytes->data(), table.data(), table.size());
}

}  // namespace

void write_mp_table(GuestMemory& ram, u32 cpus) {
  if (cpus > kMostCpus) return;
  const Gpa table = kMpTable.wrapping_add(16);
  write(ram, table, configuration(entries(cpus)));
  write(ram, kMpTable, floating_pointer(table.raw));
}

}  // namespace trapline::boot
