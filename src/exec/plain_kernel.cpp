#include "exec/plain_kernel.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "exec/read.h"
#include "packing/unpack.h"
#include "scan/bzimage.h"

namespace trapline::exec {

namespace {

constexpr u64 kLargestKernel = 512 * MiB;
constexpr u32 kPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY

// A note of that type and of Xen's in this segment.
bool has_entry(packing::Bytes notes) {
  const auto aligned = [](u64 n) { return (n + 3) & ~u64{3}; };
  for (u64 at = 0;;) {
    const auto header = packing::load<Elf64_Nhdr>(notes, at);
    if (!header) return false;
    at += sizeof *header;
    const auto name = packing::slice(notes, at, header->n_namesz);
    if (name && header->n_type == kPhys32Entry && name->size() == 4 && std::memcmp(name->data(), "Xen", 4) == 0)
      return true;
    at += aligned(header->n_namesz) + aligned(header->n_descsz);
  }
}

bool starts_by_pvh(packing::Bytes image) {
  const auto header = packing::load<Elf64_Ehdr>(image, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64)
    return false;
  for (unsigned i = 0; i < header->e_phnum; i++) {
    const auto segment = packing::load<Elf64_Phdr>(image, header->e_phoff + i * sizeof(Elf64_Phdr));
    if (!segment || segment->p_type != PT_NOTE) continue;
    const auto notes = packing::slice(image, segment->p_offset, segment->p_filesz);
    if (notes && has_entry(*notes)) return true;
  }
  return false;
}

std::optional<std::vector<u8>> unpacked(const std::string& path) {
  const auto file = read_file(path);
  if (!file || !scan::is_bzimage(*file)) return std::nullopt;
  const auto payload = scan::bzimage_payload(*file);
  if (!payload) return std::nullopt;
  auto image = packing::unpack(packing::packing_of(payload->bytes), payload->bytes, kLargestKernel);
  if (!image || !starts_by_pvh(*image)) return std::nullopt;
  return std::move(*image);
}

// Where it is kept: a name for exactly this file. Empty: nowhere.
std::string place_for(const struct stat& st) {
  const char* cache = ::getenv("XDG_CACHE_HOME");
  const char* home = ::getenv("HOME");
  std::string folder;
  if (cache && *cache == '/')
    folder = cache;
  else if (home && *home == '/')
    folder = std::string{home} + "/.cache";
  if (folder.empty()) return {};
  return fmt::format("{}/trapline/kernels/{:x}-{:x}-{:x}-{:x}", folder, st.st_dev, st.st_ino, st.st_size,
                     static_cast<u64>(st.st_mtim.tv_sec) * 1'000'000'000 + static_cast<u64>(st.st_mtim.tv_nsec));
}

bool write_at(int fd, std::span<const u8> bytes, off_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += n;
  }
  return true;
}

bool all_zero(std::span<const u8> bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// With holes where there are zeros (a third of Debian's kernel): they are not copied into the guest's RAM then.
bool write_whole(int fd, std::span<const u8> bytes) {
  for (u64 at = 0; at < bytes.size(); at += kPageSize) {
    const auto page = bytes.subspan(at, std::min<u64>(kPageSize, bytes.size() - at));
    if (!all_zero(page) && !write_at(fd, page, static_cast<off_t>(at))) return false;
  }
  return ::ftruncate(fd, static_cast<off_t>(bytes.size())) == 0;
}

// Only one of its kind is kept; a file appears whole or not at all.
void keep(const std::string& place, std::span<const u8> image) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder = fs::path{place}.parent_path();
  fs::create_directories(folder, ignored);
  const std::string same = fs::path{place}.filename().string();
  const std::string file_id = same.substr(0, same.find('-', same.find('-') + 1) + 1);
  for (const auto& entry : fs::directory_iterator{folder, ignored})
    if (entry.path().filename().string().starts_with(file_id)) fs::remove(entry.path(), ignored);
  const std::string part = fmt::format("{}.{}", place, ::getpid());
  const int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return;
  const bool whole = write_whole(fd, image);
  ::close(fd);
  if (!whole || ::rename(part.c_str(), place.c_str()) != 0) ::unlink(part.c_str());
}

int in_memory(std::span<const u8> image) {
  const int fd = ::memfd_create("kernel", MFD_CLOEXEC);
  if (fd >= 0 && !write_whole(fd, image)) {
    ::close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

Result<int, std::string> open_plain_kernel(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  struct stat st {};
  if (file < 0 || ::fstat(file, &st) != 0) return Err{fmt::format("{}: {}", path, std::strerror(errno))};
  const std::string place = place_for(st);
  const int kept = place.empty() ? -1 : ::open(place.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (kept >= 0) {
    ::close(file);
    return kept;
  }
  const auto image = unpacked(path);
  if (!image) return file;
  if (!place.empty()) keep(place, *image);
  const int memory = in_memory(*image);
  if (memory < 0) return file;
  ::close(file);
  return memory;
}

}  // namespace trapline::exec
