#include "base/write.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace trapline {

namespace {

constexpr std::size_t kPiece = 4096;  // PIPE_BUF

// False: cancelled, and the reader is still slow.
bool wait_writable(int fd, int cancel) noexcept {
  for (;;) {
    pollfd p[2] = {{fd, POLLOUT, 0}, {cancel, POLLIN, 0}};
    const int ready = ::poll(p, 2, -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0 || p[0].revents) return true;  // write() says what is wrong
    if (p[1].revents) return false;
  }
}

// A terminal that polls writable may have no room for the two bytes of a line's end. True: cancelled.
bool pause(int cancel) noexcept {
  pollfd p{cancel, POLLIN, 0};
  return ::poll(&p, 1, 1) == 1;
}

}  // namespace

int write_all(int fd, std::string_view text, int cancel) noexcept {
  while (!text.empty()) {
    if (cancel >= 0 && !wait_writable(fd, cancel)) return ECANCELED;
    const ssize_t n = ::write(fd, text.data(), std::min(text.size(), kPiece));
    if (n > 0)
      text.remove_prefix(static_cast<std::size_t>(n));
    else if (n == 0)
      return ENOSPC;
    else if (errno == EAGAIN && cancel < 0)
      ::sched_yield();  // the core's filter knows no poll()
    else if (errno == EAGAIN && pause(cancel))
      return ECANCELED;
    else if (errno != EAGAIN && errno != EINTR)
      return errno;
  }
  return 0;
}

void say(std::string_view text, int cancel) noexcept {
  try {
    std::string line{"trapline: "};
    line.append(text).push_back('\n');
    write_all(STDERR_FILENO, line, cancel);
  } catch (...) {  // no memory for one string more
    for (const std::string_view part : {std::string_view{"trapline: "}, text, std::string_view{"\n"}})
      write_all(STDERR_FILENO, part, cancel);
  }
}

}  // namespace trapline
