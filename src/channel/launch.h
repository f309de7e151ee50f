// What the monitor tells a new core, as bytes in the channel: descriptors it inherits and the VM's parameters. Written
// once before the core starts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/addr.h"
#include "base/types.h"

namespace trapline::channel {

// The guest's time of day at power-on under --clock instructions, in ns since 1970: 2025-01-01 00:00 UTC.
inline constexpr u64 kFixedWallNs = 1'735'689'600'000'000'000;

struct LaunchModule {
  int fd = -1;
  std::string name, arguments;
};

struct Launch {
  int ram_fd = -1, kernel_fd = -1, initrd_fd = -1, trace_fd = -1, scan_fd = -1, names_fd = -1;  // -1: none
  int counts_fd = -1;       // SensitiveCounts of each vCPU
  int devices_fd = -1;      // SharedPage<devices::DevicePage>
  int code_memory_fd = -1;  // an empty file with huge pages, for translated code; -1: none
  int code_fd = -1;         // code_writes.h: a word for each frame; -1: no device writes to RAM
  std::string kernel_name, command_line, cpu_features;
  std::string engine = "auto";  // as engine/registry.h lists them
  std::vector<LaunchModule> modules;
  u64 memory = 0;
  u64 rom = 0;  // bytes of firmware, which is then what kernel_fd has; 0: none
  bool text_screen = false;
  u32 cpus = 1;
  u32 virtio_mmio = 0;                  // virtio devices that ACPI has to name
  u32 xen_disks = 0, xen_networks = 0;  // virtio devices that a Xen guest has by its own interfaces
  u32 trace_mask = 0;
  bool para_kvm = true, para_xen = false;
  bool instructions_clock = false;
  bool debugger = false;
  bool split_locks_trap = false;  // cpu/split_lock.h: what the host does
  u32 hot_threshold = 32;         // and the others of this kind: engine/options.h
  std::string engine_debug;
  bool count_instructions = true;              // exactly; else engines may save themselves the trouble
  bool verify = false;                         // engine/verify/
  bool dump_guest = false, dump_host = false;  // print translated blocks
  bool patch_traps = false;                    // EngineOptions::traps
  Gva miscompile_at;
  u32 miscompile_how = 0;
  u64 cpu_seconds = 0;  // CPU time that all threads may take; 0: no limit
};

std::vector<u8> pack(const Launch& launch);
std::optional<Launch> unpack(std::span<const u8> bytes);  // nothing unless well-formed to the last byte

}  // namespace trapline::channel
