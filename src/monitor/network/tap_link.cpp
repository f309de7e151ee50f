#include "monitor/network/tap_link.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace trapline::monitor {

TapLink::TapLink(Fd tap, bool headers)
    : tap_{std::move(tap)},
      headers_{headers},
      frame_(sizeof(devices::virtio::NetHeader) + devices::virtio::Net::kLargestFrame) {}

void TapLink::send(std::span<const iovec> frame) {
  [[maybe_unused]] const ssize_t n = ::writev(tap_.get(), frame.data(), static_cast<int>(frame.size()));
}

void TapLink::receive(const Deliver& deliver, const std::function<void()>& closed) {
  while (await(tap_.get())) {
    const ssize_t n = ::read(tap_.get(), frame_.data(), frame_.size());
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
      closed();
      while (await(-1)) {
      }
      return;
    }
    const Frame frame{frame_.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
    while (n > 0 && deliver({&frame, 1}) == 0)
      if (!await(-1)) return;
  }
}

Result<Fd, VmError> open_tap(const std::string& interface) {
  using Reason = VmError::Reason;
  const auto wrong = [&](Reason reason, int error = 0) {
    return Err{VmError{VmError::About::net_tap, reason, interface, error}};
  };
  Fd tap{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
  if (!tap) return wrong(Reason::no_tun, errno);
  ifreq request{};
  if (interface.size() >= sizeof request.ifr_name) return wrong(Reason::no_such_interface);
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return wrong(Reason::interface_refused, errno);
  int bytes = sizeof(devices::virtio::NetHeader);
  if (::ioctl(tap.get(), TUNSETVNETHDRSZ, &bytes) != 0) return wrong(Reason::interface_refused, errno);
  // What a driver does not accept of it the device undoes.
  ::ioctl(tap.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN);
  return tap;
}

}  // namespace trapline::monitor
