#include "boot/acpi_area.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "acpi/aml.h"
#include "devices/board_map.h"

namespace trapline::boot {
namespace {

namespace map = devices::map;

struct AcpiTest : testing::Test {
  GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  u64 rsdp = 0;

  void make(u32 cpus) { rsdp = write_acpi_tables(ram, cpus).raw; }
  u64 get(u64 at, unsigned bytes) const {
    u64 value = 0;
    std::memcpy(&value, ram.host(Gpa{at}), bytes);
    return value;
  }
  std::string text(u64 at, unsigned bytes) const { return {reinterpret_cast<const char*>(ram.host(Gpa{at})), bytes}; }
  u8 sum(u64 at, u64 bytes) const {
    u8 total = 0;
    for (u64 i = 0; i < bytes; i++) total = static_cast<u8>(total + get(at + i, 1));
    return total;
  }
  // A table with a valid header inside the area, or 0.
  u64 checked(u64 at, const std::string& signature) const {
    EXPECT_EQ(text(at, 4), signature);
    const u64 length = get(at + 4, 4);
    EXPECT_GE(at, kAcpiTablesStart.raw);
    EXPECT_LE(at + length, kAcpiTablesEnd.raw);
    EXPECT_EQ(sum(at, length), 0) << signature;
    return at;
  }
  u64 xsdt() const { return checked(get(rsdp + 24, 8), "XSDT"); }
  u64 fadt() const { return checked(get(xsdt() + 36, 8), "FACP"); }
  u64 madt() const { return checked(get(xsdt() + 44, 8), "APIC"); }
  std::vector<std::string> madt_entries() const {
    std::vector<std::string> out;
    const u64 start = madt(), end = start + get(start + 4, 4);
    u64 at = start + 44;
    for (; at < end; at += get(at + 1, 1)) {
      if (get(at + 1, 1) < 2) break;
      out.push_back(text(at, static_cast<unsigned>(get(at + 1, 1))));
    }
    EXPECT_EQ(at, end);
    return out;
  }
};

TEST_F(AcpiTest, RootPointers) {
  make(2);
  EXPECT_EQ(rsdp, kAcpiTablesStart.raw);
  EXPECT_EQ(text(rsdp, 8), "RSD PTR ");
  EXPECT_EQ(get(rsdp + 15, 1), 2u);
  EXPECT_EQ(get(rsdp + 20, 4), 36u);
  EXPECT_EQ(sum(rsdp, 20), 0);
  EXPECT_EQ(sum(rsdp, 36), 0);
  const u64 rsdt = checked(get(rsdp + 16, 4), "RSDT");
  EXPECT_EQ(get(rsdt + 36, 4), get(xsdt() + 36, 8));
  EXPECT_EQ(get(rsdt + 40, 4), get(xsdt() + 44, 8));
  EXPECT_EQ(get(rsdt + 4, 4), 36u + 8);
  EXPECT_EQ(get(xsdt() + 4, 4), 36u + 16);
}

TEST_F(AcpiTest, Fadt) {
  make(1);
  const u64 f = fadt();
  EXPECT_EQ(get(f + 4, 4), 276u);
  EXPECT_EQ(get(f + 8, 1), 6u);
  EXPECT_EQ(get(f + 46, 2), map::sci_irq);
  EXPECT_EQ(get(f + 48, 4), 0u);                 // no SMI command port
  EXPECT_EQ(get(f + 56, 4), 0x600u);             // PM1a event
  EXPECT_EQ(get(f + 64, 4), 0x604u);             // PM1a control
  EXPECT_EQ(get(f + 76, 4), 0x608u);             // timer
  EXPECT_EQ(get(f + 80, 4), 0x620u);             // GPE0
  EXPECT_EQ(get(f + 88, 4), 0x04000204u);        // lengths: event 4, control 2, PM2 0, timer 4
  EXPECT_EQ(get(f + 92, 2), 4u);                 // GPE0 4, GPE1 0
  EXPECT_EQ(get(f + 108, 1), 0x32u);             // century
  EXPECT_EQ(get(f + 109, 2) & 7, 5u);            // legacy devices, no 8042, no VGA
  EXPECT_EQ(get(f + 112, 4) & 0x0500, 0x0500u);  // 32-bit timer, reset register
  EXPECT_EQ(get(f + 116, 1), 1u);
  EXPECT_EQ(get(f + 120, 8), 0xcf9u);
  EXPECT_EQ(get(f + 128, 1), 6u);
  EXPECT_EQ(get(f + 140, 8), get(f + 40, 4));  // X_DSDT
  EXPECT_EQ(get(f + 148 + 4, 8), 0x600u);
  EXPECT_EQ(get(f + 172 + 4, 8), 0x604u);
  EXPECT_EQ(get(f + 208 + 4, 8), 0x608u);
  EXPECT_EQ(get(f + 220 + 4, 8), 0x620u);
  const u64 facs = get(f + 36, 4);
  EXPECT_EQ(text(facs, 4), "FACS");
  EXPECT_EQ(get(facs + 4, 4), 64u);
  EXPECT_EQ(facs % 64, 0u);
  checked(get(f + 40, 4), "DSDT");
}

TEST_F(AcpiTest, MadtNamesEveryProcessor) {
  make(4);
  const auto entries = madt_entries();
  EXPECT_EQ(get(madt() + 36, 4), map::lapic.raw);
  ASSERT_EQ(entries.size(), 4u + 1 + 2 + 1);
  for (u8 i = 0; i < 4; i++) {
    const char expected[] = {0, 8, static_cast<char>(i), static_cast<char>(i), 1, 0, 0, 0};
    EXPECT_EQ(entries[i], std::string(expected, 8));
  }
  EXPECT_EQ(entries[4], std::string("\1\x0c\0\0\0\0\xc0\xfe\0\0\0\0", 12));
  EXPECT_EQ(entries[5], std::string("\2\x0a\0\0\2\0\0\0\0\0", 10));
  EXPECT_EQ(entries[6], std::string("\2\x0a\0\x09\x09\0\0\0\x0d\0", 10));
  EXPECT_EQ(entries[7], std::string("\4\6\xff\0\0\1", 6));
}

TEST_F(AcpiTest, ManyProcessorsUseX2Apic) {
  make(300);
  const auto entries = madt_entries();
  ASSERT_EQ(entries.size(), 300u + 1 + 2 + 2);
  EXPECT_EQ(entries[254][0], 0);
  EXPECT_EQ(entries[255], std::string("\x09\x10\0\0\xff\0\0\0\1\0\0\0\xff\0\0\0", 16));
  EXPECT_EQ(entries.back()[0], 0x0a);
  checked(get(fadt() + 40, 4), "DSDT");
}

// Walks an AML package length: its value must reach exactly to `end`.
u64 package_end(const GuestMemory& ram, u64 at) {
  const u8* p = reinterpret_cast<const u8*>(ram.host(Gpa{at}));
  const unsigned extra = p[0] >> 6;
  u64 length = extra == 0 ? p[0] & 0x3f : p[0] & 0x0f;
  for (unsigned i = 1; i <= extra; i++) length |= static_cast<u64>(p[i]) << (8 * i - 4);
  return at + length;
}

TEST_F(AcpiTest, DsdtIsASleepPackageAndOneScope) {
  for (const u32 cpus : {1u, 64u, 1024u}) {
    make(cpus);
    const u64 dsdt = get(fadt() + 40, 4), end = dsdt + get(dsdt + 4, 4);
    EXPECT_EQ(text(dsdt + 36, 8), std::string("\x08\\_S5_\x12\x08", 8));
    const u64 scope = package_end(ram, dsdt + 36 + 7);
    EXPECT_EQ(get(scope, 1), 0x10u);
    EXPECT_EQ(package_end(ram, scope + 1), end);
    const std::string all = text(dsdt, static_cast<unsigned>(end - dsdt));
    for (const char* name : {"PCI0", "COM1", "RTC0", "C000", "_CRS", "_PRT"})
      EXPECT_NE(all.find(name), std::string::npos);
  }
}

TEST(AmlTest, Integers) {
  EXPECT_EQ(acpi::aml::integer(0), (acpi::aml::Bytes{0x00}));
  EXPECT_EQ(acpi::aml::integer(1), (acpi::aml::Bytes{0x01}));
  EXPECT_EQ(acpi::aml::integer(0x80), (acpi::aml::Bytes{0x0a, 0x80}));
  EXPECT_EQ(acpi::aml::integer(0x1234), (acpi::aml::Bytes{0x0b, 0x34, 0x12}));
  EXPECT_EQ(acpi::aml::integer(0x12345678), (acpi::aml::Bytes{0x0c, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(acpi::aml::integer(u64{1} << 32).size(), 9u);
}

TEST(AmlTest, NamesAndIds) {
  EXPECT_EQ(acpi::aml::name("_S5", {}), (acpi::aml::Bytes{0x08, '_', 'S', '5', '_'}));
  EXPECT_EQ(acpi::aml::name("\\_SB.A", {}),
            (acpi::aml::Bytes{0x08, '\\', 0x2e, '_', 'S', 'B', '_', 'A', '_', '_', '_'}));
  EXPECT_EQ(acpi::aml::eisa_id("PNP0A03"), (acpi::aml::Bytes{0x0c, 0x41, 0xd0, 0x0a, 0x03}));
}

TEST(AmlTest, PackageLengthsCountThemselves) {
  EXPECT_EQ(acpi::aml::package({}), (acpi::aml::Bytes{0x12, 0x02, 0x00}));
  const acpi::aml::Bytes small = acpi::aml::scope("ABCD", acpi::aml::Bytes(58, 0xa3));
  EXPECT_EQ(small[1], 0x3f);
  const acpi::aml::Bytes large = acpi::aml::scope("ABCD", acpi::aml::Bytes(59, 0xa3));
  EXPECT_EQ(large[1], 0x41);
  EXPECT_EQ(large[2], 0x04);  // 0x41 bytes
  const acpi::aml::Bytes huge = acpi::aml::scope("ABCD", acpi::aml::Bytes(0x1000, 0xa3));
  EXPECT_EQ(huge[1] >> 6, 2);
  EXPECT_EQ((huge[1] & 15u) | huge[2] << 4 | huge[3] << 12, static_cast<int>(huge.size() - 1));
}

TEST(AmlTest, ResourceTemplateEndsWithAChecksum) {
  const acpi::aml::Bytes r = acpi::aml::resources({acpi::aml::io_port(0x3f8, 8), acpi::aml::irq(4)});
  EXPECT_EQ(r, (acpi::aml::Bytes{0x11, 0x10, 0x0a, 0x0d, 0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x22, 0x10,
                                 0x00, 0x79, r[16]}));
  u8 sum = 0;
  for (std::size_t i = 4; i < r.size(); i++) sum = static_cast<u8>(sum + r[i]);
  EXPECT_EQ(sum, 0);
}

}  // namespace
}  // namespace trapline::boot
