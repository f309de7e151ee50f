// How the boot fuzzers read their input: a head of parameters, then the kernel's bytes.
#pragma once

#include <cstring>

#include "base/invariant.h"
#include "boot/boot.h"

namespace trapline::fuzz {

struct BootHead {
  u8 memory = 0;  // index into kMemory
  u8 cpus = 1;
  u8 flags = 0;    // bit 0: no ACPI
  u8 modules = 0;  // low 2 bits: how many
  u16 initrd_pages = 0;
  u16 command_line = 0;  // length
};

inline constexpr u64 kMemory[] = {2 * MiB, 8 * MiB, 64 * MiB, 128 * MiB};

// Boots the input into RAM that is kept between inputs. The result matters to no one: only that nothing breaks.
inline void boot_once(const BootHead& head, boot::Bytes kernel) {
  static GuestMemory ram[std::size(kMemory)];
  GuestMemory& memory = ram[head.memory % std::size(kMemory)];
  if (memory.size() == 0) memory = *GuestMemory::anonymous(kMemory[head.memory % std::size(kMemory)]);
  static const std::byte payload[256 * KiB]{};

  boot::BootRequest request;
  request.kernel = kernel;
  request.kernel_name = "fuzz";
  request.initrd = boot::Bytes(payload).first(head.initrd_pages * u64{3} % sizeof payload);
  request.command_line = std::string(head.command_line, 'a');
  request.cpus = head.cpus % 16 + 1;
  request.acpi = head.flags & 1;  // slow, and has a fuzzer of its own
  for (unsigned i = 0; i < (head.modules & 3); i++)
    request.modules.push_back({boot::Bytes(payload).first(i * 5000), "module", "args"});
  cpu::Vcpu cpu;
  const auto info = boot::load_kernel(memory, cpu, request);
  if (info) {
    INVARIANT(info->entry == Gpa{cpu.rip}, "entry {}, rip {:#x}", info->entry, cpu.rip);
    INVARIANT(memory.is_ram(Gpa{cpu.rip}), "entry {:#x} is not RAM", cpu.rip);
  } else {
    INVARIANT(info.error().starts_with("fuzz: ") && info.error().find('\n') == std::string::npos, "error line: {}",
              info.error());
  }
}

inline bool split(const u8* data, std::size_t size, BootHead* head, boot::Bytes* kernel) {
  if (size < sizeof *head) return false;
  std::memcpy(head, data, sizeof *head);
  *kernel = std::as_bytes(std::span{data + sizeof *head, size - sizeof *head});
  return true;
}

}  // namespace trapline::fuzz
