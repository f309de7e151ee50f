#include "scan/input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace trapline::scan {

namespace {

std::string refused(const struct ::stat& st, const Limits& limits) {
  if (S_ISDIR(st.st_mode)) return "is a directory: name files";
  if (!S_ISREG(st.st_mode)) return "is not a regular file";
  if (st.st_size == 0) return "is empty";
  if (static_cast<u64>(st.st_size) > limits.input)
    return fmt::format("has {} bytes: more than {} are not read", st.st_size, limits.input);
  return {};
}

}  // namespace

Result<std::vector<u8>, std::string> read_file(const std::string& path, const Limits& limits) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return Err{std::string{std::strerror(errno)}};
  struct ::stat st {};
  std::string wrong = ::fstat(fd, &st) == 0 ? refused(st, limits) : std::strerror(errno);
  std::vector<u8> bytes;
  if (wrong.empty()) bytes.resize(static_cast<std::size_t>(st.st_size));
  for (std::size_t at = 0; wrong.empty() && at < bytes.size();) {
    const ssize_t n = ::read(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) wrong = std::strerror(errno);
    if (n == 0) bytes.resize(at);  // it shrank meanwhile
    if (n > 0) at += static_cast<std::size_t>(n);
  }
  ::close(fd);
  if (!wrong.empty()) return Err{wrong};
  return bytes;
}

}  // namespace trapline::scan
