// What a firmware reads: the loader's script done here as SeaBIOS does it, and the rest of the files.
#include "machine/firmware_files.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>

#include "acpi/tables.h"
#include "machine/smbios.h"

namespace trapline::machine {
namespace {

using Bytes = std::vector<u8>;

u64 number(const Bytes& b, std::size_t at, unsigned bytes) {
  u64 v = 0;
  for (unsigned i = 0; i < bytes; i++) v |= u64{b.at(at + i)} << 8 * i;
  return v;
}
u8 sum(const Bytes& b, std::size_t start, std::size_t length) {
  u8 total = 0;
  for (std::size_t i = 0; i < length; i++) total = static_cast<u8>(total + b.at(start + i));
  return total;
}

struct FirmwareFiles : testing::Test {
  Config config;
  Bytes vga_bios{0x55, 0xaa, 1};
  std::map<std::string, Bytes> files;

  void make() {
    devices::FwCfg fw;
    fill_firmware_files(fw, config, vga_bios);
    fw.write(0, 2, devices::FwCfg::file_dir);
    const auto next = [&fw] { return static_cast<u8>(fw.read(1, 1)); };
    const auto big = [&](unsigned bytes) {
      u32 v = 0;
      while (bytes-- > 0) v = v << 8 | next();
      return v;
    };
    struct Entry {
      u32 size, key;
      std::string name;
    };
    std::vector<Entry> entries(big(4));
    for (Entry& e : entries) {
      e.size = big(4), e.key = big(2);
      big(2);
      for (unsigned i = 0; i < 56; i++) e.name += static_cast<char>(next());
      e.name.resize(std::strlen(e.name.c_str()));
    }
    for (const Entry& e : entries) {
      fw.write(0, 2, e.key);
      for (u32 i = 0; i < e.size; i++) files[e.name].push_back(next());
    }
  }
  std::string text(const std::string& name) { return {files[name].begin(), files[name].end()}; }
};

// 64 KiB apart, as no firmware would place them.
TEST_F(FirmwareFiles, TheScriptMakesValidTablesAnywhere) {
  config.cpus = 3;
  make();
  const Bytes script = files.at("etc/table-loader");
  ASSERT_EQ(script.size() % 128, 0u);
  std::map<std::string, u64> places;
  for (std::size_t at = 0; at < script.size(); at += 128) {
    const auto name = [&](std::size_t offset) {
      return std::string{reinterpret_cast<const char*>(&script.at(at + offset))};
    };
    const u64 command = number(script, at, 4);
    const std::string file = name(4);
    ASSERT_TRUE(files.contains(file)) << file;
    Bytes& bytes = files[file];
    if (command == 1) {
      EXPECT_EQ(number(script, at + 60, 4) & (number(script, at + 60, 4) - 1), 0u);
      places[file] = 0x12340000 + places.size() * 0x10000;
    } else if (command == 2) {
      ASSERT_TRUE(places.contains(name(60)));
      const std::size_t where = number(script, at + 116, 4);
      const unsigned size = script.at(at + 120);
      const u64 value = number(bytes, where, size) + places[name(60)];
      for (unsigned i = 0; i < size; i++) bytes.at(where + i) = static_cast<u8>(value >> 8 * i);
    } else {
      ASSERT_EQ(command, 3u);
      const std::size_t where = number(script, at + 60, 4), start = number(script, at + 64, 4);
      bytes.at(where) = static_cast<u8>(bytes.at(where) - sum(bytes, start, number(script, at + 68, 4)));
    }
  }
  acpi::Image same = acpi::build({.cpus = 3, .firmware = true});
  acpi::place(same, Gpa{places["etc/acpi/tables"]});
  EXPECT_EQ(files["etc/acpi/tables"], same.tables);
  EXPECT_EQ(files["etc/acpi/rsdp"], same.rsdp);
  EXPECT_EQ(sum(same.rsdp, 0, 20), 0);
  EXPECT_EQ(sum(same.rsdp, 0, 36), 0);
}

TEST_F(FirmwareFiles, BootOrderIsTheCdThenTheDisks) {
  make();
  EXPECT_FALSE(files.contains("bootorder"));
  config.cdrom = "x.iso";
  config.disks.resize(2);
  make();
  EXPECT_EQ(text("bootorder"), std::string("/pci@i0cf8/ide@1d/drive@0/disk@0\n/pci@i0cf8/scsi@1/disk@0,0\n"
                                           "/pci@i0cf8/scsi@2/disk@0,0\0",
                                           87));
}

TEST_F(FirmwareFiles, TheConsoleIsOneOfTwo) {
  make();
  EXPECT_EQ(number(files.at("etc/sercon-port"), 0, 2), 0x3f8u);
  EXPECT_FALSE(files.contains("vgaroms/vgabios.bin"));
  files.clear();
  config.console = ConsoleChoice::vga;
  make();
  EXPECT_FALSE(files.contains("etc/sercon-port"));
  EXPECT_EQ(files.at("vgaroms/vgabios.bin"), vga_bios);
  EXPECT_NE(text("etc/acpi/tables").find("KBD0"), std::string::npos);
}

TEST_F(FirmwareFiles, WaitsForAMenuOnlyWhenAsked) {
  make();
  EXPECT_FALSE(files.contains("etc/boot-menu-wait"));
  config.boot_menu = true;
  make();
  EXPECT_EQ(number(files.at("etc/boot-menu-wait"), 0, 2), 3000u);
}

// Each structure: a length, then strings to two zeros; the last is type 127.
TEST(Smbios, IsAChainOfStructures) {
  for (const u64 memory : {64 * MiB, 5 * GiB, 64 * GiB}) {
    Config config;
    config.memory = memory;
    config.cpus = 64;
    const Smbios smbios = make_smbios(config);
    const Bytes& t = smbios.tables;
    std::size_t at = 0, count = 0, largest = 0;
    u8 type = 0;
    std::map<u8, unsigned> types;
    while (at < t.size()) {
      const std::size_t start = at;
      type = t.at(at);
      types[type]++;
      at += t.at(at + 1);
      while (t.at(at) != 0 || t.at(at + 1) != 0) at++;
      at += 2;
      count++;
      largest = std::max(largest, at - start);
    }
    EXPECT_EQ(at, t.size());
    EXPECT_EQ(type, 127);
    EXPECT_EQ(types[1], 1u);
    EXPECT_EQ(types[19], memory > 3 * GiB ? 2u : 1u);
    EXPECT_EQ(smbios.anchor.size(), 0x1fu);
    EXPECT_EQ(number(smbios.anchor, 8, 2), largest);
    EXPECT_EQ(number(smbios.anchor, 0x16, 2), t.size());
    EXPECT_EQ(number(smbios.anchor, 0x1c, 2), count);
  }
}

}  // namespace
}  // namespace trapline::machine
