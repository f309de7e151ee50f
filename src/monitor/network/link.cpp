#include "monitor/network/link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/host_refused.h"

namespace trapline::monitor {

NetLink::NetLink() : wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
  if (!wake_) throw HostRefused{"--net: no eventfd: raise the limit of open files (ulimit -n)"};
}

std::vector<int> NetLink::calls() { return {SYS_sendmsg}; }

void NetLink::wake() {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void NetLink::stop() {
  stopping_ = true;
  wake();
}

bool NetLink::await(int fd) {
  pollfd ready[] = {{wake_.get(), POLLIN, 0}, {fd, POLLIN, 0}};
  ::poll(ready, fd < 0 ? 1 : 2, -1);
  u64 count = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  return !stopping_;
}

}  // namespace trapline::monitor
