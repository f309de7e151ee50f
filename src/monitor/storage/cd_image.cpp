#include "monitor/storage/cd_image.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace trapline::monitor {

Result<std::unique_ptr<CdFile>, VmError> CdFile::open(const std::string& path) {
  constexpr u64 kLargest = 256 * GiB;
  auto fd = open_image(path, VmError::About::cdrom, kLargest);
  if (!fd) return Err{fd.error()};
  struct stat st {};
  ::fstat(fd->get(), &st);
  const u64 blocks = (static_cast<u64>(st.st_size) + devices::kCdBlock - 1) / devices::kCdBlock;
  return std::unique_ptr<CdFile>{new CdFile{std::move(*fd), static_cast<u32>(blocks)}};
}

std::vector<int> CdFile::calls() { return {SYS_pread64}; }

bool CdFile::read(u32 block, std::span<u8, devices::kCdBlock> to) {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t n = ::pread(fd_.get(), to.data() + done, to.size() - done,
                              static_cast<off_t>(u64{block} * devices::kCdBlock + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  std::fill(to.begin() + static_cast<std::ptrdiff_t>(done), to.end(), u8{0});
  return done != 0;
}

}  // namespace trapline::monitor
