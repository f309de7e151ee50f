#include "machine/chipset_firmware.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/guest_memory.h"

namespace trapline::machine {

namespace {

using Key = devices::FwCfg::Key;

u64 ram_below_4g(const Config& c) { return std::min(c.memory, kPciHoleStart); }
u64 ram_above_4g(const Config& c) { return c.memory - ram_below_4g(c); }

void store16(devices::Rtc& rtc, u8 index, u64 value) {
  const u64 v = std::min<u64>(value, 0xffff);
  rtc.store(index, static_cast<u8>(v));
  rtc.store(index + 1, static_cast<u8>(v >> 8));
}

void put(std::vector<u8>& out, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) out.push_back(static_cast<u8>(value >> 8 * i));
}

// As etc/e820 of QEMU: packed {u64 address, u64 length, u32 type}, RAM (type 1) only.
std::vector<u8> e820(const Config& config) {
  std::vector<u8> out;
  const auto ram = [&](u64 start, u64 length) {
    if (length == 0) return;
    put(out, start, 8);
    put(out, length, 8);
    put(out, 1, 4);
  };
  ram(0, ram_below_4g(config));
  ram(kPciHoleEnd, ram_above_4g(config));
  return out;
}

}  // namespace

// The layout that PC BIOSes share (Ralf Brown's CMOS memory map; the sizes above 16 MiB and 4 GiB as Bochs and QEMU
// have them).
void fill_cmos(devices::Rtc& rtc, const Config& config) {
  const u64 low = ram_below_4g(config), high = ram_above_4g(config);
  const u64 extended_kib = low > MiB ? (low - MiB) / KiB : 0;
  rtc.store(0x0f, 0);     // shutdown status: normal
  rtc.store(0x10, 0);     // no diskettes
  rtc.store(0x12, 0);     // no fixed disks
  rtc.store(0x14, 0x02);  // equipment: an x87, no display
  store16(rtc, 0x15, 640);
  store16(rtc, 0x17, extended_kib);
  store16(rtc, 0x30, extended_kib);
  store16(rtc, 0x34, low > 16 * MiB ? (low - 16 * MiB) / (64 * KiB) : 0);
  const u64 high_units = std::min<u64>(high / (64 * KiB), 0xffffff);
  rtc.store(0x5b, static_cast<u8>(high_units));
  rtc.store(0x5c, static_cast<u8>(high_units >> 8));
  rtc.store(0x5d, static_cast<u8>(high_units >> 16));
  rtc.store(0x5f, static_cast<u8>(std::clamp<u32>(config.cpus, 1, 256) - 1));
  unsigned sum = 0;
  for (u8 i = 0x10; i <= 0x2d; i++) sum += rtc.stored(i);
  rtc.store(0x2e, static_cast<u8>(sum >> 8));  // this one checksum is big-endian
  rtc.store(0x2f, static_cast<u8>(sum));
}

void fill_fw_cfg(devices::FwCfg& fw, const Config& config) {
  const u32 cpus = std::min<u32>(config.cpus, 0xffff);
  fw.add(Key::uuid, std::vector<u8>(16, 0));
  fw.add_number(Key::ram_size, config.memory, 8);
  fw.add_number(Key::nographic, 1, 2);
  fw.add_number(Key::nb_cpus, cpus, 2);
  fw.add_number(Key::max_cpus, cpus, 2);
  fw.add_number(Key::numa, 0, 8);
  fw.add_number(Key::boot_menu, 0, 2);
  fw.add_number(Key::kernel_size, 0, 4);  // the kernel is in memory already
  fw.add_number(Key::initrd_size, 0, 4);
  std::vector<u8> line(config.append.begin(), config.append.end());
  line.push_back(0);
  fw.add_number(Key::cmdline_size, line.size(), 4);
  fw.add(Key::cmdline_data, std::move(line));
  fw.add_file("etc/e820", e820(config));
}

}  // namespace trapline::machine
