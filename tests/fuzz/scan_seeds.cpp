#include "scan_seeds.h"

#include <fstream>

#include "unit/scan/packers.h"

namespace trapline::fuzz {

namespace {

using namespace scan::testing;
namespace fs = std::filesystem;

void write(const fs::path& folder, const std::string& name, const Blob& bytes) {
  fs::create_directories(folder);
  std::ofstream out(folder / name, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// cmp, ja, lea, movsxd, add, jmp: a switch; then cases, a UD2, NOPs.
Blob code() {
  return {0x83, 0xff, 0x01, 0x77, 0x13, 0x48, 0x8d, 0x15, 0xf4, 0x0f, 0,    0,    0x48,
          0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0xff, 0xe0, 0xfa, 0xc3, 0xfb, 0xc3, 0x0f,
          0x0b, 0x9d, 0xe8, 0xdf, 0xff, 0xff, 0xff, 0xc3, 0x90, 0x90, 0xcc};
}

Blob program(u16 type) {
  ElfBuilder elf;
  elf.type = type;
  elf.entry = 0x401000;
  Blob table, rela;
  put<i32>(table, 0x401015 - 0x402000), put<i32>(table, 0x401017 - 0x402000);
  put<u64>(rela, 0x1c + 1), put<u64>(rela, u64{1} << 32 | 4), put<i64>(rela, -4);
  elf.sections = {{".text", 1, 6, 0x401000, code()},
                  {".rodata", 1, 2, 0x402000, table},
                  {".rela.text", 4, 0, 0, rela, 4, 1, 24},
                  {".init_array", 14, 3, 0x403000, {0, 0x10, 0x40, 0, 0, 0, 0, 0}}};
  elf.symbols = {{"f", type == 1 ? 0u : 0x401000u, 30}, {"g", type == 1 ? 30u : 0x40101eu, 4}};
  return elf.build();
}

// The two bytes of head that scan_linux_fuzz reads, code, then a table of distances back into it.
Blob table_seed(u8 table, unsigned words) {
  Blob out{table, 128};
  Blob body;
  while (body.size() < words * 4) {
    const Blob more = code();
    put(body, more.data(), more.size());
  }
  body.resize(words * 4);
  put(out, body.data(), body.size());
  for (unsigned i = 0; i < words; i++) put<i32>(out, -static_cast<i32>(words * 4 + i * 4));
  return out;
}

}  // namespace

void write_scan_seeds(const fs::path& root) {
  for (u16 type : {u16{1}, u16{2}, u16{3}}) write(root / "scan_elf_fuzz", "elf" + std::to_string(type), program(type));
  const struct {
    const char* name;
    Blob (*pack)(const Blob&);
  } packers[] = {
      {"gzip", pack_gzip},   {"xz", pack_xz},  {"zstd", pack_zstd}, {"lz4", pack_lz4}, {"lz4_legacy", pack_lz4_legacy},
      {"bzip2", pack_bzip2}, {"lzo", pack_lzo}};
  for (const auto& p : packers) {
    write(root / "scan_unpack_fuzz", p.name, p.pack(program(2)));
    write(root / "scan_elf_fuzz", p.name, p.pack(program(1)));
  }
  for (u8 table = 0; table < 10; table++) {
    write(root / "scan_linux_fuzz", "table" + std::to_string(table), table_seed(table, 24));
    write(root / "scan_linux_fuzz", "table32_" + std::to_string(table), table_seed(static_cast<u8>(table | 64), 24));
  }
  for (u8 mode = 0; mode < 3; mode++) {
    Blob raw{mode};
    const Blob c = code();
    put(raw, c.data(), c.size());
    write(root / "scan_raw_fuzz", "raw" + std::to_string(mode), raw);
  }
}

}  // namespace trapline::fuzz
