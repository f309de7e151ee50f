// What a VM is made of, as the command line or the API gives it. Plain data, checked by monitor/ before use.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/addr.h"
#include "base/types.h"

namespace trapline::machine {

enum class ParaChoice : u8 { none, kvm, xen, automatic };
enum class ClockChoice : u8 { real, instructions };
enum class ConsoleChoice : u8 { serial, vga };  // what this terminal shows: COM1, or a text screen and its keyboard

struct Module {  // multiboot module: file and its command line
  std::string path;
  std::string arguments;
};

// A folder of the host that the guest sees.
struct Share {
  std::string path;
  std::string tag;
  bool readonly = false;
  bool vhost_user = false;  // `path` is the socket of a back end
};

// The VM runs one command (trapline exec): src/agent/protocol.h.
struct CommandRun {
  bool wanted = false;
  bool terminal = false;  // this process's own is the command's
  bool verbose = false;   // the guest's console on standard error
};

// What engines are told; all but the last is the environment's, for tests. engine/options.h has the meaning of the
// numbers.
struct EngineSettings {
  u32 hot_threshold = 32;
  std::string debug;
  Gva miscompile_at;
  u32 miscompile_how = 0;
  bool traps = false;  // --patch-with traps
};

// --disk FILE[,OPTION...]
enum class DiskFormat : u8 { by_content, raw, qcow2 };
struct DiskConfig {
  std::string path, serial;
  DiskFormat format = DiskFormat::by_content;
  bool read_only = false;
  bool snapshot = false;    // what the guest writes is thrown away
  bool discard = false;     // what the guest discards is given back to the host
  bool vhost_user = false;  // `path` is the socket of a back end, whose business the rest is
  bool operator==(const DiskConfig&) const = default;
};

// --net
struct NetConfig {
  enum class Kind : u8 { user, passt, tap, socket, vhost_user };
  Kind kind = Kind::user;
  std::array<u8, 6> mac{};
  u32 mtu = 1500;
  std::string path;                   // socket, vhost_user: where; tap: the interface
  bool restricted = false;            // user: the guest reaches what is forwarded and nothing else
  std::vector<std::string> forwards;  // user, passt: as slirp/forward.h has them
  bool operator==(const NetConfig&) const = default;
};

// --vsock
struct VsockConfig {
  u32 cid = 0;  // the guest's; 0: there is none
  std::string path;
  bool operator==(const VsockConfig&) const = default;
};

struct Config {
  std::string kernel, initrd, append, system_map;
  std::vector<Module> modules;
  u64 memory = 512 * MiB;
  u32 cpus = 1;
  std::string engine = "auto";  // a name that engine::find_engine knows
  EngineSettings engine_settings;
  std::string note;  // one line about the choice, for the user; or empty
  ParaChoice para = ParaChoice::kvm;
  ClockChoice clock = ClockChoice::real;
  std::string cpu_features;
  double timeout_seconds = 0;  // 0: none
  u32 trace_mask = 0;
  std::string trace_file;   // empty: standard error
  std::string scan_report;  // empty: none
  bool stats = false;
  // Of `trapline compare`, -1: none; the caller's. Where the figures of the run go (monitor/run_figures.h), and counts
  // of sensitive instructions (channel/sensitive_counts.h, of each vCPU).
  int figures_fd = -1, counts_fd = -1;
  bool verify = false;                         // translated code in lockstep with the interpreter
  bool dump_guest = false, dump_host = false;  // print translated blocks
  bool perf_map = false;
  std::string rerun;  // a shell line that does the same again, for messages
  bool no_reboot = false;
  bool huge_pages = true;  // guest RAM in huge pages where the host can give them and has memory to spare
  u16 gdb_port = 0;        // of localhost; 0: none
  std::string gdb_socket;  // path; empty: none
  bool debugged() const { return gdb_port != 0 || !gdb_socket.empty(); }
  bool gdb_wait = false;
  std::vector<DiskConfig> disks;
  std::vector<NetConfig> networks;
  std::vector<Share> shares;
  CommandRun command;
  std::string name;                    // as `trapline ps` has it; empty: one is given
  std::string stem = "vm";             // of the name that is given
  std::string what;                    // for that list; empty: the kernel
  int kernel_fd = -1, initrd_fd = -1;  // instead of `kernel` and `initrd`, which then are names; the caller's
  bool virtio_mmio = false;            // virtio devices by memory-mapped registers, not on the PCI bus
  VsockConfig vsock;
  bool balloon = false;   // a virtio memory balloon,
  u64 balloon_bytes = 0;  // and how much the guest shall give away
  bool rng = false;       // a virtio entropy device

  std::string firmware;  // a ROM image; empty: a kernel is booted without
  std::string vga_bios;  // the display's, with console `vga`
  ConsoleChoice console = ConsoleChoice::serial;
  std::string cdrom;  // an image; empty: no drive
  bool boot_menu = false;
  bool display() const { return console == ConsoleChoice::vga; }
  // Does another program get the guest's RAM?
  bool lends_ram() const {
    const auto by_vhost = [](const auto& device) { return device.vhost_user; };
    return std::any_of(disks.begin(), disks.end(), by_vhost) || std::any_of(shares.begin(), shares.end(), by_vhost) ||
           std::any_of(networks.begin(), networks.end(),
                       [](const NetConfig& n) { return n.kind == NetConfig::Kind::vhost_user; });
  }
};

}  // namespace trapline::machine
