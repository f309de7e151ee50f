#include "cli/firmware_option.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

namespace trapline::cli {

namespace {

using machine::Config;
using machine::ConsoleChoice;

// Debian's package.
constexpr const char *kSeaBios = "/usr/share/seabios/bios-256k.bin", *kVgaBios = "/usr/share/seabios/vgabios.bin";

std::string check_console(const std::string& name, Config& c) {
  if (name != "serial" && name != "vga") return fmt::format("--console {}: no such console: use serial or vga", name);
  if (name == "serial") return {};
  c.console = ConsoleChoice::vga;
  c.vga_bios = kVgaBios;
  if (c.firmware.empty()) return "--console vga: a kernel that is booted directly has no display: give --firmware too";
  if (c.clock == machine::ClockChoice::instructions)
    return "--console vga: what a screen shows in between cannot be repeated: use --clock real";
  return {};
}

// What would be loaded beside a kernel, and there is none.
std::string first_idle(const RunOptions& o, const Config& c) {
  if (!c.kernel.empty()) return "--kernel " + c.kernel;
  if (!c.initrd.empty()) return "--initrd";
  if (!c.append.empty()) return "--append";
  return o.modules.empty() ? "" : "--module";
}

}  // namespace

void add_firmware_options(CLI::App& run, RunOptions& o) {
  Config& c = o.config;
  run.add_option("--firmware", c.firmware,
                 "boot from disk or CD by this BIOS, instead of a kernel; seabios: the one of Debian's package")
      ->type_name("FILE|seabios");
  run.add_option("--cdrom", c.cdrom, "an image in a CD drive (ATAPI)")->type_name("FILE");
  run.add_option("--console", o.console, "what this terminal shows of a firmware: serial, or vga: a text screen")
      ->type_name("CONSOLE")
      ->capture_default_str();
  run.add_flag("--boot-menu", c.boot_menu, "the firmware offers a choice of what to boot");
}

std::string check_firmware(const RunOptions& o, Config& c) {
  if (c.firmware.empty()) {
    if (c.kernel.empty())
      return "run: no kernel: name one: trapline run FILE, or --kernel FILE; or --firmware seabios, for a disk that "
             "boots";
    if (c.boot_menu) return "--boot-menu: a kernel is booted: give --firmware seabios instead";
    return check_console(o.console, c);
  }
  if (o.virtio_transport == "mmio")
    return "--virtio-transport mmio: a firmware finds disks on the PCI bus alone: leave it out";
  if (const std::string idle = first_idle(o, c); !idle.empty())
    return fmt::format("--firmware: {}: the firmware boots what a disk or CD has: leave one of them out", idle);
  if (c.firmware == "seabios") {
    c.firmware = kSeaBios;
    if (::access(kSeaBios, F_OK) != 0)
      return fmt::format("--firmware seabios: {} is not there: install the Debian package seabios, or name a file",
                         kSeaBios);
  }
  return check_console(o.console, c);
}

}  // namespace trapline::cli
