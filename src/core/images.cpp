#include "core/images.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/finish.h"

namespace trapline::core {

namespace {

// Below this a copy is as cheap.
constexpr u64 kWorthACall = 64 * KiB;

off_t offset_of(const GuestMemory& ram, Gpa gpa) {
  return static_cast<off_t>(gpa.raw < kPciHoleStart ? gpa.raw : gpa.raw - kPciHoleEnd + ram.low_end());
}

struct Range {
  off_t first, end;
};

// The next part of [at, end) that a file holds; elsewhere it has a hole. A file system that does not know holes has
// none.
Range next_data(int fd, off_t at, off_t end) {
  const off_t data = ::lseek(fd, at, SEEK_DATA);
  if (data < 0) return errno == ENXIO ? Range{end, end} : Range{at, end};
  if (data >= end) return {end, end};
  const off_t hole = ::lseek(fd, data, SEEK_HOLE);
  return {data, hole < 0 ? end : std::min(hole, end)};
}

// False: nothing was sent.
bool send(int from, Range range, int to, off_t at) {
  if (::lseek(to, at, SEEK_SET) != at) return false;
  off_t next = range.first;
  while (next < range.end) {
    const ssize_t n = ::sendfile(to, from, &next, static_cast<std::size_t>(range.end - next));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
  }
  return true;
}

}  // namespace

Result<void, std::string> Images::add(int fd, const std::string& what) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return Err{fmt::format("{}: {}", what, std::strerror(errno))};
  const auto size = static_cast<std::size_t>(std::max<off_t>(st.st_size, 0));
  boot::Bytes bytes;
  if (size > 0) {
    // Populated by nobody: of most images a loader reads a header.
    void* at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) return Err{fmt::format("{}: cannot map its {} bytes: {}", what, size, std::strerror(errno))};
    bytes = {static_cast<const std::byte*>(at), size};
  }
  images_.push_back({fd, what, bytes});
  return {};
}

Result<Images, std::string> Images::open(const channel::Launch& launch) {
  Images all;
  all.ram_fd_ = launch.ram_fd;
  if (auto ok = all.add(launch.kernel_fd, "kernel"); !ok) return Err{ok.error()};
  if (launch.initrd_fd >= 0)
    if (auto ok = all.add(launch.initrd_fd, "initrd"); !ok) return Err{ok.error()};
  for (const auto& module : launch.modules)
    if (auto ok = all.add(module.fd, "module"); !ok) return Err{ok.error()};
  return all;
}

boot::BootRequest Images::request(const channel::Launch& launch) const {
  boot::BootRequest r;
  std::size_t next = 0;
  r.kernel = images_[next++].bytes;
  if (launch.initrd_fd >= 0) r.initrd = images_[next++].bytes;
  for (const auto& m : launch.modules) r.modules.push_back({images_[next++].bytes, m.name, m.arguments});
  r.kernel_name = launch.kernel_name;
  r.command_line = launch.command_line;
  r.cpus = launch.cpus;
  r.virtio_mmio = launch.virtio_mmio;
  return r;
}

const Images::Image* Images::image_of(boot::Bytes bytes) const {
  for (const Image& i : images_)
    if (!i.bytes.empty() && bytes.data() >= i.bytes.data() &&
        bytes.data() + bytes.size() <= i.bytes.data() + i.bytes.size())
      return &i;
  return nullptr;
}

const char* Images::holds(const void* address) const {
  const auto* const at = static_cast<const std::byte*>(address);
  for (const Image& i : images_)
    // The mapping ends with its last page.
    if (!i.bytes.empty() && at >= i.bytes.data() &&
        at < i.bytes.data() + ((i.bytes.size() + kPageSize - 1) & kPageMask))
      return i.what.c_str();
  return nullptr;
}

bool Images::bring(boot::Bytes from, const GuestMemory& ram, Gpa to) const {
  const Image* const image = from.size() < kWorthACall ? nullptr : image_of(from);
  if (image == nullptr) return false;
  const off_t first = from.data() - image->bytes.data(), end = first + static_cast<off_t>(from.size());
  const off_t base = offset_of(ram, to);
  for (Range part{first, first}; part.end < end;) {
    part = next_data(image->fd, part.end, end);
    ram.expect_huge(Gpa{to.raw + static_cast<u64>(part.first - first)}, static_cast<u64>(part.end - part.first));
    if (part.first < part.end && !send(image->fd, part, ram_fd_, base + (part.first - first))) {
      if (const off_t size = ::lseek(image->fd, 0, SEEK_END); size >= 0 && size < end)
        finish(channel::EndKind::boot_failed,
               fmt::format("{}: read failed at byte {}: the file was cut short", image->what, size));
      return false;
    }
  }
  return true;
}

std::vector<int> Images::sources() const {
  std::vector<int> all;
  for (const Image& i : images_) all.push_back(i.fd);
  return all;
}

void Images::release() {
  for (const Image& i : images_) {
    if (!i.bytes.empty()) ::munmap(const_cast<std::byte*>(i.bytes.data()), i.bytes.size());
    ::close(i.fd);
  }
  images_.clear();
  ::close(ram_fd_);
  ram_fd_ = -1;
}

}  // namespace trapline::core
