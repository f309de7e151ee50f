// Loads a kernel the way a boot loader would: guest memory is filled in, the boot vCPU's registers are set. Runs in the
// sandboxed core: images are hostile bytes. Formats: Linux/x86 boot protocol (64-bit and 32-bit entry), PVH (ELF note),
// multiboot 1 and 2.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/guest_memory.h"
#include "base/result.h"
#include "base/types.h"
#include "cpu/vcpu.h"

namespace trapline::boot {

using Bytes = std::span<const std::byte>;

struct BootModule {
  Bytes bytes;
  std::string name;  // begins the module's string in multiboot
  std::string arguments;
};

// Brings bytes of an image into RAM by a shorter way than through two mappings; false: not these, and they are copied.
using Bring = std::function<bool(Bytes from, Gpa to)>;

struct BootRequest {
  Bytes kernel, initrd;     // initrd may be empty
  std::string kernel_name;  // for messages, and begins multiboot's command line
  std::string command_line;
  std::vector<BootModule> modules;
  u32 cpus = 1;
  u32 virtio_mmio = 0;   // devices that ACPI has to name
  u64 tell_tsc_khz = 0;  // Linux asks nothing that would tell it; 0: it does
  bool acpi = true;
  bool ram_is_zero = false;  // as the host gives it: then clearing it would only touch its pages
  Bring bring = nullptr;     // may be none
};

enum class BootFormat : u8 { linux64, linux32, pvh, multiboot1, multiboot2 };

struct BootInfo {
  BootFormat format;
  Gpa entry;
};

// On success the RAM holds kernel, tables and parameters and `boot_cpu` is ready to run.
// Error: one line that names the image and the remedy ("kernel: setup header asks for 9.3 MiB at 16 MiB, but the guest
// has 8 MiB: give --memory 64M or more").
Result<BootInfo, std::string> load_kernel(GuestMemory& ram, cpu::Vcpu& boot_cpu, const BootRequest& request);

}  // namespace trapline::boot
