#include "boot/boot.h"

#include <algorithm>

#include "base/trace.h"
#include "boot/acpi_area.h"
#include "boot/firmware.h"
#include "boot/loader.h"
#include "boot/mp_table.h"
#include "boot/xen_image.h"
#include "packing/unpack.h"

namespace trapline::boot {

namespace loader {
namespace {

constexpr u64 kSmallestMemory = 2 * MiB;

// What one compressed image may grow to, whatever the guest's memory.
constexpr u64 kMostUnpacked = 512 * MiB;

bool starts_with(Bytes image, std::initializer_list<u8> magic) {
  const auto head = slice(image, 0, magic.size());
  return head && std::memcmp(head->data(), magic.begin(), magic.size()) == 0;
}

std::string not_a_kernel(Bytes image) {
  if (load<u32>(image, 0x38) == 0x644d5241) return "a kernel for 64-bit Arm: an x86 kernel is needed";
  if (starts_with(image, {'M', 'Z'})) return "an EFI program without a Linux setup header: this machine has no EFI";
  return "not a kernel: neither bzImage, ELF with a PVH note, nor multiboot";
}

Loaded load_elf(LoadContext& c) {
  auto elf = parse_elf(c.request.kernel);
  if (!elf) return Err{elf.error()};
  if (const auto entry = pvh_entry(*elf)) return load_pvh(c, *elf, *entry);
  if (xen_notes(*elf).any) return Err{std::string{"a kernel for Xen: run it with --para xen"}};
  return Err{
      fmt::format("ELF{} without a PVH note or a multiboot header: build Linux with CONFIG_PVH=y, or give its bzImage",
                  elf->is64 ? 64 : 32)};
}

// Multiboot comes before PVH: a kernel that offers both (Xen) expects its modules by multiboot.
Loaded load_any(LoadContext& c) {
  const Bytes image = c.request.kernel;
  if (image.empty()) return Err{std::string("the file is empty")};
  if (is_bzimage(image)) return load_linux(c);
  if (c.request.command_line.size() > kCommandLineMax)
    return Err{fmt::format("the command line has {} bytes, at most {} can be passed: shorten --append",
                           c.request.command_line.size(), kCommandLineMax)};
  if (const auto header = find_multiboot2(image)) return load_multiboot2(c, *header);
  if (const auto header = find_multiboot1(image)) return load_multiboot1(c, *header);
  if (is_elf(image)) return load_elf(c);
  return Err{not_a_kernel(image)};
}

// Compressed images, as distributions ship multiboot kernels: one layer is taken off. What cannot fit the guest's
// memory is not unpacked to the end.
Loaded load_maybe_packed(LoadContext& c) {
  const Bytes image = c.request.kernel;
  const packing::Bytes bytes{reinterpret_cast<const u8*>(image.data()), image.size()};
  const packing::Packing kind = is_bzimage(image) ? packing::Packing::none : packing::packing_of(bytes);
  if (kind == packing::Packing::none) return load_any(c);
  const u64 most = std::min(c.ram.size(), kMostUnpacked);
  const auto unpacked = packing::unpack(kind, bytes, most);
  if (!unpacked)
    return Err{fmt::format("compressed with {}, and does not unpack into {} of memory: {}", packing::name_of(kind),
                           human_size(most), unpacked.error())};
  TRACE(boot, "unpacked: {} bytes of {}", unpacked->size(), packing::name_of(kind));
  BootRequest request = c.request;
  request.kernel = std::as_bytes(std::span{*unpacked});
  LoadContext inner{c.ram, c.cpu, request, std::move(c.place), c.rsdp};
  return load_any(inner);
}

}  // namespace
}  // namespace loader

Result<BootInfo, std::string> load_kernel(GuestMemory& ram, cpu::Vcpu& boot_cpu, const BootRequest& request) {
  const std::string name = request.kernel_name.empty() ? "kernel" : request.kernel_name;
  if (ram.size() < loader::kSmallestMemory)
    return Err{fmt::format("{}: {} of guest memory is too little: {}", name, loader::human_size(ram.size()),
                           loader::memory_remedy(0))};
  loader::LoadContext context{ram, boot_cpu, request, loader::Placer(ram), {}};
  write_firmware(ram);  // before the image: one that loads at 0 replaces what lies there
  if (request.acpi) context.rsdp = write_acpi_tables(ram, request.cpus, request.virtio_mmio);
  write_mp_table(ram, request.cpus);
  auto loaded = loader::load_maybe_packed(context);
  if (!loaded) return Err{fmt::format("{}: {}", name, loaded.error())};
  return loaded;
}

}  // namespace trapline::boot
