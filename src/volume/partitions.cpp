#include "volume/partitions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>

namespace trapline::volume {

namespace {

constexpr u64 kSector = 512;
constexpr u64 kSectorSizes[] = {512, 4096};
constexpr std::size_t kTable = 446;  // of an MBR: four entries of 16 bytes, then 55 AA
constexpr u8 kProtective = 0xee;
constexpr unsigned kMostLogical = 60;

template <class T>
T at(std::span<const u8> bytes, std::size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

bool is_extended(u8 type) { return type == 0x05 || type == 0x0f || type == 0x85; }

struct Entry {
  u8 status, type;
  u64 first, sectors;
};

Entry entry_of(std::span<const u8> sector, unsigned index) {
  const std::size_t o = kTable + 16 * index;
  return {sector[o], sector[o + 4], at<u32>(sector, o + 8), at<u32>(sector, o + 12)};
}

std::optional<std::array<u8, kSector>> table_at(const Source& disk, u64 sector) {
  std::array<u8, kSector> bytes{};
  if (sector > disk.size() / kSector || !disk.read(sector * kSector, bytes)) return std::nullopt;
  if (bytes[510] != 0x55 || bytes[511] != 0xaa) return std::nullopt;
  return bytes;
}

// Cut to the disk; false when nothing is left.
bool fit(const Source& disk, Partition& p) {
  if (p.bytes == 0 || p.first >= disk.size()) return false;
  p.bytes = std::min(p.bytes, disk.size() - p.first);
  return true;
}

// Mixed-endian, as GUIDs are written (UEFI 2.10, appendix A).
std::string guid_text(std::span<const u8> b) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}", at<u32>(b, 0),
                     at<u16>(b, 4), at<u16>(b, 6), b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

// The table whose header is at that byte. Checksums are not asked for: what a partition holds is checked by who reads
// it, and firmware that is strict about them does not boot here.
std::vector<Partition> gpt_at(const Source& disk, u64 header_at, u64 sector) {
  std::array<u8, 92> header{};
  if (!disk.read(header_at, header) || std::memcmp(header.data(), "EFI PART", 8) != 0) return {};
  const u64 table = at<u64>(header, 72);
  const u32 count = at<u32>(header, 80), size = at<u32>(header, 84);
  if (size < 128 || size > 4096 || table > disk.size() / sector) return {};
  std::vector<Partition> found;
  std::vector<u8> entry(128);
  for (u32 i = 0; i < std::min<u32>(count, kMostPartitions); i++) {
    if (!disk.read(table * sector + u64{i} * size, entry)) break;
    if (std::all_of(entry.begin(), entry.begin() + 16, [](u8 b) { return b == 0; })) continue;
    const u64 first = at<u64>(entry, 32), last = at<u64>(entry, 40);
    if (last < first || first > disk.size() / sector || last - first >= ~u64{0} / sector) continue;
    Partition p{i + 1, first * sector, (last - first + 1) * sector, guid_text(std::span{entry}.subspan(16, 16))};
    if (fit(disk, p)) found.push_back(std::move(p));
  }
  return found;
}

std::vector<Partition> gpt(const Source& disk) {
  for (const u64 sector : kSectorSizes) {
    if (auto found = gpt_at(disk, sector, sector); !found.empty()) return found;
    if (disk.size() < 2 * sector) continue;
    if (auto spare = gpt_at(disk, (disk.size() / sector - 1) * sector, sector); !spare.empty()) return spare;
  }
  return {};
}

class Mbr {
 public:
  explicit Mbr(const Source& disk) : disk_{disk} {}

  std::vector<Partition> read() {
    const auto table = table_at(disk_, 0);
    if (!table) return {};
    id_ = at<u32>(*table, 440);
    for (unsigned i = 0; i < 4; i++) {
      const Entry e = entry_of(*table, i);
      if (e.status & 0x7f) return {};  // a boot sector of something else
      if (e.type == 0 || e.type == kProtective || is_extended(e.type)) continue;
      add(i + 1, e.first, e.sectors);
    }
    for (unsigned i = 0; i < 4; i++)
      if (const Entry e = entry_of(*table, i); is_extended(e.type)) add_logical(e.first);
    return std::move(found_);
  }

 private:
  void add(unsigned number, u64 first, u64 sectors) {
    Partition p{number, first * kSector, sectors * kSector, fmt::format("{:08x}-{:02x}", id_, number)};
    if (fit(disk_, p)) found_.push_back(std::move(p));
  }

  // A chain of tables: the first entry is a partition, relative to its table, the second the next table, relative to
  // the first one. It may be a ring.
  void add_logical(u64 base) {
    std::set<u64> seen;
    for (u64 sector = base; number_ < 5 + kMostLogical && seen.insert(sector).second;) {
      const auto table = table_at(disk_, sector);
      if (!table) return;
      const Entry e = entry_of(*table, 0), next = entry_of(*table, 1);
      if (e.type != 0 && e.sectors != 0) add(number_++, sector + e.first, e.sectors);
      if (!is_extended(next.type)) return;
      sector = base + next.first;
    }
  }

  const Source& disk_;
  u32 id_ = 0;
  unsigned number_ = 5;
  std::vector<Partition> found_;
};

bool has_ext(const Source& disk, u64 first) {
  std::array<u8, 2> magic{};
  return disk.read(first + 1024 + 56, magic) && magic[0] == 0x53 && magic[1] == 0xef;
}

}  // namespace

std::vector<Partition> partitions_of(const Source& disk) {
  if (has_ext(disk, 0)) return {{0, 0, disk.size(), {}}};
  if (auto found = gpt(disk); !found.empty()) return found;
  if (auto found = Mbr{disk}.read(); !found.empty()) return found;
  return {{0, 0, disk.size(), {}}};
}

bool looks_like_a_disk(const Source& disk) {
  std::array<u8, 4> header{};
  // A bzImage has the mark of a boot sector, too (Documentation/arch/x86/boot.rst).
  if (disk.read(0x202, header) && std::memcmp(header.data(), "HdrS", 4) == 0) return false;
  if (disk.read(0, header) && std::memcmp(header.data(), "\177ELF", 4) == 0) return false;
  return has_ext(disk, 0) || !gpt(disk).empty() || !Mbr{disk}.read().empty();
}

}  // namespace trapline::volume
