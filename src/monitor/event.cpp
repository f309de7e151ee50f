#include "monitor/event.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/host_refused.h"

namespace trapline::monitor {

Event::Event() : fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
  if (!fd_)
    throw HostRefused{
        fmt::format("no descriptor for an event: {}: raise the limit of open files (ulimit -n)", std::strerror(errno))};
}

void Event::set() noexcept {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &one, sizeof one);
}

void Event::clear() noexcept {
  u64 count;
  [[maybe_unused]] const ssize_t n = ::read(fd_.get(), &count, sizeof count);
}

bool Event::is_set() const noexcept {
  pollfd p{fd_.get(), POLLIN, 0};
  return ::poll(&p, 1, 0) == 1;
}

}  // namespace trapline::monitor
