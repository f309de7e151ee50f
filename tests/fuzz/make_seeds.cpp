// Writes the seed inputs of every fuzzer below a folder: make_seeds FOLDER [KERNEL...]; the head of each KERNEL is a
// seed too.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "boot_input.h"
#include "scan_seeds.h"
#include "unit/boot/images.h"

using namespace trapline;
using namespace trapline::boot::testing;
namespace fs = std::filesystem;

namespace {

void write(const fs::path& folder, const std::string& name, const void* head, std::size_t head_size,
           const Image& body) {
  fs::create_directories(folder);
  std::ofstream out(folder / name, std::ios::binary);
  out.write(static_cast<const char*>(head), static_cast<std::streamsize>(head_size));
  out.write(reinterpret_cast<const char*>(body.data()), static_cast<std::streamsize>(body.size()));
}

void write_boot(const fs::path& root, const char* fuzzer, const std::string& name, const Image& kernel) {
  const fuzz::BootHead head{2, 1, name.starts_with("mb2"), 1, 3, 40};
  write(root / fuzzer, name, &head, sizeof head, kernel);
}

Image with_header(bool is64, const std::string& header, u32 vaddr) {
  Segment s;
  s.bytes = header;
  s.vaddr = vaddr;
  return elf(is64, vaddr, {s});
}

void boot_seeds(const fs::path& root) {
  Image old = bzimage(64);
  set<u16>(old, 0x206, 0x206);
  for (const auto& [name, kernel] : {std::pair{"bzimage", bzimage(64)},
                                     {"bzimage_206", old},
                                     {"pvh64", elf(true, 0x100000, {{}}, 0x100000)},
                                     {"pvh32", elf(false, 0x100000, {{}}, 0x100000)}}) {
    write_boot(root, "boot_fuzz", name, kernel);
    if (kernel[0] == std::byte{0x7f}) write(root / "elf_fuzz", name, nullptr, 0, kernel);
  }
  const std::string tags = tag2(1, 1, {3, 4, 6}) + tag2(10, 0, {0x100000, 0x2000000, 0x1000, 2}) + tag2(6, 0, {});
  for (const auto& [name, kernel] :
       {std::pair{"mb1_flat", multiboot1_flat()},
        {"mb1_elf32", with_header(false, multiboot1_header(), 0x100000)},
        {"mb1_elf64", with_header(true, multiboot1_header(), 0xc0100000)},
        {"mb2_flat", multiboot2_flat(tags)},
        {"mb2_elf64", with_header(true, multiboot2_header(tags + tag2(3, 0, {0x100008})), 0x100000)}}) {
    write_boot(root, "boot_fuzz", name, kernel);
    write_boot(root, "multiboot_fuzz", name, kernel);
  }
}

void kernel_seed(const fs::path& root, const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes(64 * KiB, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  Image image(static_cast<std::size_t>(in.gcount()));
  std::memcpy(image.data(), bytes.data(), image.size());
  write_boot(root, "boot_fuzz", path.filename().string(), image);
}

void text_seeds(const fs::path& root) {
  const auto text = [&](const char* harness, const char* name, const std::string& bytes) {
    write(root / harness, name, bytes.data(), bytes.size(), {});
  };
  // Length, then packets, as the harness splits them.
  text("gdb_stub_fuzz", "session",
       std::string{"\x01\x12"} + "+$qSupported#37+$?#3f" + "\x14" + "$QStartNoAckMode#b0+" + "\x1a" +
           "$Z0,100,1#d9$g#67$m0,40#2a" + "\x0c" + "$vCont;c#a8" + "\x10" + "$qRcmd,68656c70#fc");
  text("report_fuzz", "crash",
       std::string(1, '\0') + "triple fault at @ffffffff81000100\nffffffff81000000 T schedule\n");
  text("report_fuzz", "log", std::string{"\x01\x01\x00\x00\x00", 5});
  text("mailbox_fuzz", "some", "\x00\x08\x12\x23\x04\x45\x06\x87\x0f\x1f\x2d");
}

void instruction_seeds(const fs::path& root) {
  unsigned i = 0;
  for (const std::string_view bytes :
       {"\x48\x8b\x05\x10\x20\x30\x40", "\xf0\x0f\xb1\x0b", "\xc4\xe2\x7d\x90\x04\x48", "\x62\xf1\x7c\x48\x58\xc1",
        "\xf3\xa4", "\x66\x0f\x38\x00\xc1", "\xd9\xe8", "\x0f\x01\xd0", "\x9a\x01\x02\x03\x04\x05\x06"}) {
    Image body(bytes.size());
    std::memcpy(body.data(), bytes.data(), bytes.size());
    write(root / "decode_fuzz", std::to_string(i++), nullptr, 0, body);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: make_seeds FOLDER [KERNEL...]\n";
    return 2;
  }
  const fs::path root = argv[1];
  boot_seeds(root);
  instruction_seeds(root);
  text_seeds(root);
  trapline::fuzz::write_scan_seeds(root);
  write(root / "acpi_fuzz", "small", "\x02\x00\x00\x40", 4, {});
  write(root / "chipset_fuzz", "steps", "\x00\x00\x00\x00\x11\x00\x00\x00\x07\x01\x10\x00\x00\x00\x00\x00", 16, {});
  for (int i = 2; i < argc; i++) kernel_seed(root, argv[i]);
}
