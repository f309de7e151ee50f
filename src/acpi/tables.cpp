#include "acpi/tables.h"

#include <span>
#include <string_view>

#include "acpi/dsdt.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "devices/acpi_pm.h"
#include "devices/board_map.h"

namespace trapline::acpi {

namespace {

namespace map = devices::map;

using Table = std::vector<u8>;
using Pm = devices::AcpiPm;

constexpr std::string_view kOemId = "TRAPLN", kOemTableId = "TRAPLINE", kCreator = "TRAP";
constexpr std::size_t kChecksumAt = 9;

void put(Table& t, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) t.push_back(static_cast<u8>(value >> 8 * i));
}
void put(Table& t, std::string_view text) {
  for (const char c : text) t.push_back(static_cast<u8>(c));
}
void patch(Table& t, std::size_t at, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) t[at + i] = static_cast<u8>(value >> 8 * i);
}

Table begin(std::string_view signature, u8 revision) {
  Table t;
  put(t, signature);
  put(t, 0, 4);  // length, by finish()
  put(t, revision, 1);
  put(t, 0, 1);  // checksum, by place() or the firmware
  put(t, kOemId);
  put(t, kOemTableId);
  put(t, 1, 4);
  put(t, kCreator);
  put(t, 1, 4);
  return t;
}

Table finish(Table t) {
  patch(t, 4, t.size(), 4);
  return t;
}

// Generic address structure for an I/O port (ACPI 6.4, 5.2.3.2). `access`: 1 byte, 2 word, 3 double word.
void put_port(Table& t, u64 port, u8 bits, u8 access) {
  put(t, 1, 1);
  put(t, bits, 1);
  put(t, 0, 1);
  put(t, access, 1);
  put(t, port, 8);
}
void put_no_port(Table& t) { put(t, 0, 8), put(t, 0, 4); }

// ACPI 6.4 table 5.9. SMI_CMD is 0: the machine is in ACPI mode for good.
Table fadt(u64 facs, u64 dsdt, const Machine& m) {
  constexpr u32 kWbinvd = 1u << 0, kProcC1 = 1u << 2, kNoFixedSleepButton = 1u << 5, kTimer32 = 1u << 8,
                kResetRegister = 1u << 10, kHeadless = 1u << 12;
  constexpr u16 kLegacyDevices = 1u << 0, k8042 = 1u << 1, kNoVga = 1u << 2, kNoAspm = 1u << 4;
  // Without a keyboard the 8042 is not told of: nobody is to probe it.
  const u16 boot_flags =
      static_cast<u16>(kLegacyDevices | kNoAspm | (m.keyboard ? k8042 : 0) | (m.display ? 0 : kNoVga));
  Table t = begin("FACP", 6);
  put(t, facs, 4);
  put(t, dsdt, 4);
  put(t, 0, 1);  // was INT_MODEL
  put(t, 0, 1);  // preferred profile: unspecified
  put(t, map::sci_irq, 2);
  put(t, 0, 4);  // SMI_CMD
  put(t, 0, 4);  // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
  put(t, map::acpi_pm + Pm::kPm1Event, 4);
  put(t, 0, 4);
  put(t, map::acpi_pm + Pm::kPm1Control, 4);
  put(t, 0, 4);
  put(t, 0, 4);  // PM2
  put(t, map::acpi_pm + Pm::kTimer, 4);
  put(t, map::acpi_pm + Pm::kGpe0, 4);
  put(t, 0, 4);  // GPE1
  put(t, 4, 1);  // lengths: PM1_EVT, PM1_CNT, PM2_CNT, PM_TMR, GPE0, GPE1; GPE1 base
  put(t, 2, 1);
  put(t, 0, 1);
  put(t, 4, 1);
  put(t, 4, 1);
  put(t, 0, 1);
  put(t, 0, 1);
  put(t, 0, 1);      // CST_CNT
  put(t, 0xfff, 2);  // latencies that say: no C2, no C3
  put(t, 0xfff, 2);
  put(t, 0, 4);     // FLUSH_SIZE, FLUSH_STRIDE: WBINVD works
  put(t, 0, 4);     // DUTY_OFFSET, DUTY_WIDTH, DAY_ALRM, MON_ALRM
  put(t, 0x32, 1);  // CENTURY: CMOS index
  put(t, boot_flags, 2);
  put(t, 0, 1);
  put(t, kWbinvd | kProcC1 | kNoFixedSleepButton | kTimer32 | kResetRegister | (m.display ? 0 : kHeadless), 4);
  put_port(t, 0xcf9, 8, 1);  // RESET_REG
  put(t, 6, 1);              // RESET_VALUE: hard reset
  put(t, 0, 2);              // ARM_BOOT_ARCH
  put(t, 4, 1);              // minor version
  put(t, 0, 8);              // X_FIRMWARE_CTRL: the 32-bit one counts
  put(t, dsdt, 8);
  put_port(t, map::acpi_pm + Pm::kPm1Event, 32, 2);
  put_no_port(t);
  put_port(t, map::acpi_pm + Pm::kPm1Control, 16, 2);
  put_no_port(t);
  put_no_port(t);
  put_port(t, map::acpi_pm + Pm::kTimer, 32, 3);
  put_port(t, map::acpi_pm + Pm::kGpe0, 32, 1);
  put_no_port(t);
  put_no_port(t);  // sleep control, sleep status: hardware-reduced machines only
  put_no_port(t);
  put(t, 0, 8);  // hypervisor vendor
  INVARIANT(t.size() == 276, "FADT of {} bytes", t.size());
  return finish(std::move(t));
}

Table facs() {
  Table t;
  put(t, "FACS");
  put(t, 64, 4);
  t.resize(64, 0);
  t[32] = 2;  // version
  return t;
}

// ACPI 6.4, 5.2.12. Local APIC structures name ids up to 254; beyond, x2APIC ones.
Table madt(u32 cpus) {
  constexpr u32 kFirstX2Apic = 255;
  constexpr u16 kActiveHighLevel = 0x000d;
  Table t = begin("APIC", 5);
  put(t, map::lapic.raw, 4);
  put(t, 1, 4);  // PCAT_COMPAT: there are 8259s to be masked
  for (u32 i = 0; i < cpus; i++) {
    if (i < kFirstX2Apic) {
      put(t, 0x0800, 2);
      put(t, i, 1);  // processor UID
      put(t, i, 1);  // APIC id
      put(t, 1, 4);  // enabled
    } else {
      put(t, 0x1009, 2);
      put(t, 0, 2);
      put(t, i, 4);
      put(t, 1, 4);
      put(t, i, 4);
    }
  }
  put(t, 0x0c01, 2);  // IOAPIC: id 0, GSIs from 0
  put(t, 0, 2);
  put(t, map::ioapic.raw, 4);
  put(t, 0, 4);
  const auto override_irq = [&](u8 irq, u32 gsi, u16 flags) {
    put(t, 0x0a02, 2);
    put(t, 0, 1);
    put(t, irq, 1);
    put(t, gsi, 4);
    put(t, flags, 2);
  };
  override_irq(0, 2, 0);
  override_irq(map::sci_irq, map::sci_irq, kActiveHighLevel);
  put(t, 0x0604, 2);  // NMI at LINT1 of every local APIC
  put(t, 0xff, 1);
  put(t, 0, 2);
  put(t, 1, 1);
  if (cpus > kFirstX2Apic) {
    put(t, 0x0c0a, 2);
    put(t, 0, 2);
    put(t, 0xffffffff, 4);
    put(t, 1, 4);
  }
  return finish(std::move(t));
}

Table dsdt(const Machine& machine) {
  Table t = begin("DSDT", 2);
  const aml::Bytes body = dsdt_body(machine);
  t.insert(t.end(), body.begin(), body.end());
  return finish(std::move(t));
}

Table root(std::string_view signature, unsigned pointer_bytes, std::initializer_list<u64> tables) {
  Table t = begin(signature, 1);
  for (const u64 table : tables) put(t, table, pointer_bytes);
  return finish(std::move(t));
}

Table rsdp(u64 rsdt, u64 xsdt) {
  Table t;
  put(t, "RSD PTR ");
  put(t, 0, 1);
  put(t, kOemId);
  put(t, 2, 1);  // revision
  put(t, rsdt, 4);
  put(t, 36, 4);
  put(t, xsdt, 8);
  put(t, 0, 4);
  return t;
}

// Lays the tables out one behind the other.
class Builder {
 public:
  // Its offset. `pointers`: those that it holds, as (offset in it, bytes).
  u64 add(const Table& table, std::initializer_list<std::pair<u32, u32>> pointers = {}, bool summed = true) {
    const u32 at = static_cast<u32>(image.tables.size());
    image.tables.insert(image.tables.end(), table.begin(), table.end());
    image.tables.resize((image.tables.size() + 63) & ~std::size_t{63});  // the FACS must be aligned so
    for (const auto& [offset, bytes] : pointers) image.pointers.push_back({File::tables, at + offset, bytes});
    if (summed)
      image.checksums.push_back({File::tables, at + static_cast<u32>(kChecksumAt), at, static_cast<u32>(table.size())});
    TRACE(boot, "acpi {} at {:#x}, {} bytes", std::string_view(reinterpret_cast<const char*>(table.data()), 4), at,
          table.size());
    return at;
  }
  Image image;
};

}  // namespace

Image build(const Machine& machine) {
  Builder b;
  const u64 facs_at = b.add(facs(), {}, false);
  const u64 dsdt_at = b.add(dsdt(machine));
  const u64 fadt_at = b.add(fadt(facs_at, dsdt_at, machine), {{36, 4}, {40, 4}, {140, 8}});
  const u64 madt_at = b.add(madt(machine.cpus));
  const u64 rsdt_at = b.add(root("RSDT", 4, {fadt_at, madt_at}), {{36, 4}, {40, 4}});
  const u64 xsdt_at = b.add(root("XSDT", 8, {fadt_at, madt_at}), {{36, 8}, {44, 8}});
  Image image = std::move(b.image);
  image.rsdp = rsdp(rsdt_at, xsdt_at);
  image.pointers.push_back({File::rsdp, 16, 4});
  image.pointers.push_back({File::rsdp, 24, 8});
  image.checksums.push_back({File::rsdp, 8, 0, 20});
  image.checksums.push_back({File::rsdp, 32, 0, 36});
  return image;
}

void place(Image& image, Gpa tables_at) {
  for (const Pointer& p : image.pointers) {
    Table& t = image.file(p.in);
    u64 value = 0;
    for (u32 i = 0; i < p.bytes; i++) value |= u64{t[p.at + i]} << 8 * i;
    patch(t, p.at, value + tables_at.raw, p.bytes);
  }
  for (const Checksum& c : image.checksums) {
    Table& t = image.file(c.in);
    u8 sum = 0;
    for (u32 i = 0; i < c.length; i++) sum = static_cast<u8>(sum + t[c.start + i]);
    t[c.at] = static_cast<u8>(t[c.at] - sum);
  }
}

}  // namespace trapline::acpi
