#include "machine/firmware_files.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "acpi/tables.h"
#include "devices/board_map.h"
#include "machine/i440fx.h"
#include "machine/smbios.h"

namespace trapline::machine {

namespace {

using Bytes = std::vector<u8>;

constexpr const char *kTables = "etc/acpi/tables", *kRsdp = "etc/acpi/rsdp";

void put(Bytes& out, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) out.push_back(static_cast<u8>(value >> 8 * i));
}
Bytes number(u64 value, unsigned bytes) {
  Bytes out;
  put(out, value, bytes);
  return out;
}

// etc/table-loader: commands of 128 bytes.
class LoaderScript {
 public:
  enum class Zone : u8 { high = 1, f_segment = 2 };
  void allocate(std::string_view file, u32 alignment, Zone zone) {
    begin(1);
    name(file);
    put(bytes, alignment, 4);
    put(bytes, static_cast<u8>(zone), 1);
    end();
  }
  void add_pointer(std::string_view in, std::string_view to, u32 at, u32 size) {
    begin(2);
    name(in);
    name(to);
    put(bytes, at, 4);
    put(bytes, size, 1);
    end();
  }
  void add_checksum(std::string_view in, u32 at, u32 start, u32 length) {
    begin(3);
    name(in);
    put(bytes, at, 4);
    put(bytes, start, 4);
    put(bytes, length, 4);
    end();
  }
  Bytes bytes;

 private:
  static constexpr std::size_t kCommand = 128, kName = 56;
  void begin(u32 command) {
    start_ = bytes.size();
    put(bytes, command, 4);
  }
  void name(std::string_view file) {
    for (std::size_t i = 0; i < kName; i++) bytes.push_back(i < file.size() ? static_cast<u8>(file[i]) : 0);
  }
  void end() { bytes.resize(start_ + kCommand); }
  std::size_t start_ = 0;
};

const char* file_of(acpi::File file) { return file == acpi::File::rsdp ? kRsdp : kTables; }

void add_acpi(devices::FwCfg& fw, const Config& config) {
  acpi::Image image =
      acpi::build({.cpus = config.cpus, .firmware = true, .keyboard = config.display(), .display = config.display()});
  LoaderScript script;
  script.allocate(kTables, 64, LoaderScript::Zone::high);
  script.allocate(kRsdp, 16, LoaderScript::Zone::f_segment);
  for (const acpi::Pointer& p : image.pointers) script.add_pointer(file_of(p.in), kTables, p.at, p.bytes);
  for (const acpi::Checksum& c : image.checksums) script.add_checksum(file_of(c.in), c.at, c.start, c.length);
  fw.add_file(kTables, std::move(image.tables));
  fw.add_file(kRsdp, std::move(image.rsdp));
  fw.add_file("etc/table-loader", std::move(script.bytes));
}

// Open Firmware paths, the first to be tried first: the CD, then disks in their order.
Bytes boot_order(const Config& config) {
  std::string order;
  if (!config.cdrom.empty()) order += fmt::format("/pci@i0cf8/ide@{:x}/drive@0/disk@0\n", kIdeSlot);
  for (std::size_t i = 0; i < config.disks.size(); i++) order += fmt::format("/pci@i0cf8/scsi@{:x}/disk@0,0\n", i + 1);
  if (!order.empty()) order.back() = '\0';
  return {order.begin(), order.end()};
}

}  // namespace

void fill_firmware_files(devices::FwCfg& fw, const Config& config, std::span<const u8> vga_bios) {
  constexpr u64 kForEver = 0xffffffff, kMenuWait = 3000;  // ms
  add_acpi(fw, config);
  Smbios smbios = make_smbios(config);
  fw.add_file("etc/smbios/smbios-anchor", std::move(smbios.anchor));
  fw.add_file("etc/smbios/smbios-tables", std::move(smbios.tables));
  fw.add_file("etc/boot-fail-wait", number(kForEver, 4));
  if (Bytes order = boot_order(config); !order.empty()) fw.add_file("bootorder", std::move(order));
  if (config.boot_menu) {
    fw.add_number(devices::FwCfg::boot_menu, 1, 2);
    fw.add_file("etc/boot-menu-wait", number(kMenuWait, 2));
  }
  if (config.display())
    fw.add_file("vgaroms/vgabios.bin", {vga_bios.begin(), vga_bios.end()});
  else
    fw.add_file("etc/sercon-port", number(devices::map::com1, 2));
}

}  // namespace trapline::machine
