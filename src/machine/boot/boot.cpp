#include "machine/boot/boot.h"

#include "machine/acpi/tables.h"
#include "machine/boot/loader.h"

namespace trapline::machine {

namespace loader {
namespace {

constexpr u64 kSmallestMemory = 2 * MiB;

struct Magic {
  std::initializer_list<u8> bytes;
  const char* what;
  const char* remedy;
};

// What people hand over instead of a kernel.
const Magic kCompressed[] = {
    {{0x1f, 0x8b}, "gzip", "gunzip"},
    {{0xfd, '7', 'z', 'X', 'Z', 0}, "xz", "unxz"},
    {{0x28, 0xb5, 0x2f, 0xfd}, "zstd", "unzstd"},
    {{'B', 'Z', 'h'}, "bzip2", "bunzip2"},
    {{0x5d, 0, 0}, "lzma", "unlzma"},
    {{0x89, 'L', 'Z', 'O'}, "lzop", "lzop -d"},
    {{0x02, 0x21, 0x4c, 0x18}, "lz4", "unlz4"},
    {{0x04, 0x22, 0x4d, 0x18}, "lz4", "unlz4"},
};

bool starts_with(Bytes image, std::initializer_list<u8> magic) {
  const auto head = slice(image, 0, magic.size());
  return head && std::memcmp(head->data(), magic.begin(), magic.size()) == 0;
}

std::string not_a_kernel(Bytes image) {
  for (const Magic& m : kCompressed)
    if (starts_with(image, m.bytes))
      return fmt::format("{}-compressed: unpack it first ({}), or give the bzImage that unpacks itself", m.what,
                         m.remedy);
  if (load<u32>(image, 0x38) == 0x644d5241) return "a kernel for 64-bit Arm: an x86 kernel is needed";
  if (starts_with(image, {'M', 'Z'})) return "an EFI program without a Linux setup header: this machine has no EFI";
  return "not a kernel: neither bzImage, ELF with a PVH note, nor multiboot";
}

Loaded load_elf(Context& c) {
  auto elf = parse_elf(c.request.kernel);
  if (!elf) return Err{elf.error()};
  if (const auto entry = pvh_entry(*elf)) return load_pvh(c, *elf, *entry);
  return Err{
      fmt::format("ELF{} without a PVH note or a multiboot header: build Linux with CONFIG_PVH=y, or give its bzImage",
                  elf->is64 ? 64 : 32)};
}

// Multiboot comes before PVH: a kernel that offers both (Xen) expects its modules by multiboot.
Loaded load_any(Context& c) {
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

// The few words of the BIOS data area that kernels read: COM1's ports, the EBDA's segment, the memory below it in KiB.
void write_bios_data(GuestMemory& ram) {
  put_value<u16>(ram, 0x400, 0x3f8);
  put_value<u16>(ram, 0x40e, kExtendedBiosData >> 4);
  put_value<u16>(ram, 0x413, kLowMemoryKiB);
}

}  // namespace
}  // namespace loader

Result<BootInfo, std::string> boot(GuestMemory& ram, cpu::Vcpu& boot_cpu, const BootRequest& request) {
  const std::string name = request.kernel_name.empty() ? "kernel" : request.kernel_name;
  if (ram.size() < loader::kSmallestMemory)
    return Err{fmt::format("{}: {} of guest memory is too little: {}", name, loader::human_size(ram.size()),
                           loader::memory_remedy(0))};
  loader::Context context{ram, boot_cpu, request, loader::Placer(ram)};
  loader::write_bios_data(ram);  // before the image: one that loads at 0 replaces it
  if (request.acpi) context.rsdp = write_acpi_tables(ram, request.cpus).raw;
  auto loaded = loader::load_any(context);
  if (!loaded) return Err{fmt::format("{}: {}", name, loaded.error())};
  return loaded;
}

}  // namespace trapline::machine
