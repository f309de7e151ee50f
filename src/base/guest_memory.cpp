#include "base/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/benign_race.h"
#include "base/growing_memory.h"
#include "base/touch_ahead.h"

namespace trapline {

namespace {

std::string failed(const char* step) { return fmt::format("guest memory: {} failed: {}", step, std::strerror(errno)); }

bool map_part(std::byte* at, u64 length, int fd, u64 offset) {
  const int flags = MAP_FIXED | MAP_NORESERVE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  return ::mmap(at, length, PROT_READ | PROT_WRITE, flags, fd, fd < 0 ? 0 : static_cast<off_t>(offset)) != MAP_FAILED;
}

}  // namespace

Result<int, std::string> GuestMemory::create_fd(u64 size) {
  const int fd = ::memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Err{failed("memfd_create")};
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) {
    ::close(fd);
    return Err{failed("ftruncate")};
  }
  // Several processes map it: none can take the others' memory away.
  ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return fd;
}

Result<GuestMemory, std::string> GuestMemory::map(int fd, u64 size, const Extras& extras) {
  GuestMemory m;
  m.size_ = size;
  m.rom_ = extras.rom;
  if (extras.text_screen) m.hole_ = kTextScreenStart - kVideoHoleStart;
  m.reserved_ = frames_of(size, extras.rom != 0) * kPageSize;
  void* at = reserve_huge(m.reserved_, PROT_NONE);
  if (!at) return Err{failed("mmap (reserve)")};
  m.base_ = static_cast<std::byte*>(at);
  const u64 low = m.low_end();
  if (!map_part(m.base_, kVideoHoleStart, fd, 0)) return Err{failed("mmap (below 640 KiB)")};
  const u64 behind = kVideoHoleStart + m.hole_;
  if (!map_part(m.base_ + behind, low - behind, fd, behind)) return Err{failed("mmap (below 4 GiB)")};
  if (m.rom_ != 0 && !map_part(m.base_ + kPciHoleEnd - m.rom_, m.rom_, -1, 0)) return Err{failed("mmap (ROM)")};
  if (size > low && !map_part(m.base_ + kPciHoleEnd, size - low, fd, low)) return Err{failed("mmap (above 4 GiB)")};
  if (struct stat st{}; fd >= 0 && ::fstat(fd, &st) == 0 && static_cast<u64>(st.st_blksize) >= kHugePage) {
    m.chunk_shift_ = kHugeShift;
    ::madvise(m.base_, m.reserved_, MADV_HUGEPAGE);
  }
  m.expected_ = std::make_unique<std::atomic<u64>[]>((m.reserved_ >> m.chunk_shift_) / 64 + 1);
  m.asked_ = std::make_unique<std::atomic<u64>[]>((m.reserved_ >> m.chunk_shift_) / 64 + 1);
  // vCPUs race for it as the guest's programs do: what they see then is the guest's affair.
  declare_races_benign(m.base_, m.reserved_, "guest RAM");
  return m;
}

GuestMemory::GuestMemory(GuestMemory&& o) noexcept
    : base_{std::exchange(o.base_, nullptr)},
      expected_{std::move(o.expected_)},
      asked_{std::move(o.asked_)},
      size_{std::exchange(o.size_, 0)},
      reserved_{std::exchange(o.reserved_, 0)},
      rom_{std::exchange(o.rom_, 0)},
      hole_{o.hole_},
      chunk_shift_{o.chunk_shift_} {}

GuestMemory& GuestMemory::operator=(GuestMemory&& o) noexcept {
  std::swap(base_, o.base_);
  std::swap(expected_, o.expected_);
  std::swap(asked_, o.asked_);
  std::swap(size_, o.size_);
  std::swap(reserved_, o.reserved_);
  std::swap(rom_, o.rom_);
  std::swap(hole_, o.hole_);
  std::swap(chunk_shift_, o.chunk_shift_);
  return *this;
}

GuestMemory::~GuestMemory() {
  if (base_) ::munmap(base_, reserved_);
}

// Where it is refused (holes, hosts before Linux 5.14, no memory left) pages come one by one.
void GuestMemory::populate(Gpa gpa) const {
  const u64 chunk = gpa.raw >> chunk_shift_;
  expected_[chunk / 64].fetch_or(u64{1} << chunk % 64, std::memory_order_relaxed);
  ask_ahead(chunk);
  const u64 at = gpa.raw & ~(kSmallChunk - 1);
  trapline::populate(base_ + at, std::min(kSmallChunk, reserved_ - at));
}

// Upwards or downwards, as the chunks around tell; a kernel's early allocator goes down from the end of RAM.
void GuestMemory::ask_ahead(u64 chunk) const {
  const u64 end = reserved_ >> chunk_shift_;
  const u64 most = (chunk_shift_ == kHugeShift ? kHugeAhead : kSmallAhead) >> chunk_shift_;
  const bool up = chunk != 0 && is_expected(chunk - 1), down = chunk + 1 < end && is_expected(chunk + 1);
  if (up == down) return;
  const u64 step = up ? 1 : ~u64{0};
  u64 run = 1;
  while (run < most && chunk - run * step < end && is_expected(chunk - run * step)) run++;
  u64 first = ~u64{0}, last = 0;
  for (u64 n = 1; n <= run; n++) {
    const u64 next = chunk + n * step, bit = u64{1} << next % 64;
    if (next >= end) break;
    if (is_expected(next) || asked_[next / 64].fetch_or(bit, std::memory_order_relaxed) & bit) continue;
    first = std::min(first, next);
    last = std::max(last, next);
  }
  if (first <= last) touch_ahead(base_ + (first << chunk_shift_), (last - first + 1) << chunk_shift_);
}

void GuestMemory::expect_huge(Gpa gpa, u64 bytes) const {
  if (chunk_shift_ != kHugeShift) return;
  for (u64 at = gpa.raw; at < gpa.raw + bytes; at = (at | (kHugePage - 1)) + 1) expect(Gpa{at});
}

std::optional<std::span<std::byte>> GuestMemory::bytes(Gpa gpa, u64 length) const {
  if (length == 0) return std::span<std::byte>{};
  const auto last = gpa.checked_add(length - 1);
  if (!last) return std::nullopt;
  const auto region = [&](u64 first, u64 end) { return gpa.raw >= first && last->raw < end; };
  if (region(0, kVideoHoleStart) || region(kVideoHoleStart + hole_, low_end()) || region(kPciHoleEnd, high_end()))
    return std::span{host(gpa), length};
  return std::nullopt;
}

}  // namespace trapline
