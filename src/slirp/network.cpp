#include "slirp/network.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace trapline::slirp {

namespace {

i64 now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return i64{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

in_addr address(u32 host_order) { return {htonl(host_order)}; }
in6_addr address6(const char* text) {
  in6_addr a{};
  ::inet_pton(AF_INET6, text, &a);
  return a;
}

}  // namespace

Network::Network(const Library& library, int socket, bool restricted, u32 mtu)
    : library_{library}, socket_{socket}, frames_{socket} {
  callbacks_.send_packet = [](const void* bytes, size_t length, void* opaque) -> ssize_t {
    self(opaque).frames_.send({static_cast<const u8*>(bytes), length});
    return static_cast<ssize_t>(length);
  };
  callbacks_.guest_error = [](const char*, void*) {};
  callbacks_.clock_get_ns = [](void*) -> int64_t { return now_ns(); };
  callbacks_.timer_new_opaque = [](SlirpTimerId id, void* argument, void* opaque) -> void* {
    auto& timers = self(opaque).timers_;
    timers.push_back(std::make_unique<Timer>(Timer{id, argument}));
    return timers.back().get();
  };
  callbacks_.timer_free = [](void* timer, void* opaque) {
    std::erase_if(self(opaque).timers_, [timer](const auto& t) { return t.get() == timer; });
  };
  callbacks_.timer_mod = [](void* timer, int64_t due_ms, void*) { static_cast<Timer*>(timer)->due_ms = due_ms; };
  callbacks_.register_poll_fd = [](int, void*) {};
  callbacks_.unregister_poll_fd = [](int, void*) {};
  callbacks_.notify = [](void*) {};
  callbacks_.init_completed = [](::Slirp*, void*) {};

  // The network that QEMU's users know.
  SlirpConfig config{};
  config.version = 4;
  config.restricted = restricted;
  config.in_enabled = true;
  config.vnetwork = address(0x0a000200);
  config.vnetmask = address(0xffffff00);
  config.vhost = address(0x0a000202);
  config.vdhcp_start = address(0x0a00020f);
  config.vnameserver = address(0x0a000203);
  config.in6_enabled = true;
  config.vprefix_addr6 = address6("fec0::");
  config.vprefix_len = 64;
  config.vhost6 = address6("fec0::2");
  config.vnameserver6 = address6("fec0::3");
  config.if_mtu = config.if_mru = mtu;
  slirp_ = library_.make(&config, &callbacks_, this);
}

Network::~Network() { library_.cleanup(slirp_); }

void Network::input(std::span<const u8> frame) { library_.input(slirp_, frame.data(), static_cast<int>(frame.size())); }

std::string Network::forward(const Forward& f) {
  if (library_.add_forward(slirp_, f.udp, f.host, f.host_port, f.guest, f.guest_port) == 0) return {};
  char host[INET_ADDRSTRLEN] = {};
  ::inet_ntop(AF_INET, &f.host, host, sizeof host);
  return fmt::format("hostfwd: {} port {} of {}: {}: name a free port", f.udp ? "UDP" : "TCP", f.host_port, host,
                     std::strerror(errno));
}

int Network::add_poll(int fd, int events, void* opaque) {
  short wanted = 0;
  if (events & SLIRP_POLL_IN) wanted |= POLLIN;
  if (events & SLIRP_POLL_OUT) wanted |= POLLOUT;
  if (events & SLIRP_POLL_PRI) wanted |= POLLPRI;
  auto& polled = self(opaque).polled_;
  polled.push_back({fd, wanted, 0});
  return static_cast<int>(polled.size()) - 1;
}

int Network::ready_events(int index, void* opaque) {
  const short ready = self(opaque).polled_[static_cast<std::size_t>(index)].revents;
  int events = 0;
  if (ready & POLLIN) events |= SLIRP_POLL_IN;
  if (ready & POLLOUT) events |= SLIRP_POLL_OUT;
  if (ready & POLLPRI) events |= SLIRP_POLL_PRI;
  if (ready & POLLERR) events |= SLIRP_POLL_ERR;
  if (ready & POLLHUP) events |= SLIRP_POLL_HUP;
  return events;
}

// The ms until the next one, or ~0.
u32 Network::fire_timers() {
  const i64 now = now_ns() / 1'000'000;
  u32 next = ~0u;
  for (auto& timer : timers_) {
    if (timer->due_ms >= 0 && timer->due_ms <= now) {
      timer->due_ms = -1;
      library_.handle_timer(slirp_, timer->id, timer->argument);
    }
    if (timer->due_ms >= 0) next = std::min(next, static_cast<u32>(std::min<i64>(timer->due_ms - now, 1'000'000)));
  }
  return next;
}

void Network::run() {
  for (;;) {
    u32 timeout = std::min(fire_timers(), u32{3'600'000});
    polled_.assign(1, {socket_, static_cast<short>(POLLIN | (frames_.waiting() ? POLLOUT : 0)), 0});
    library_.fill(slirp_, &timeout, add_poll, this);
    const int ready = ::poll(polled_.data(), polled_.size(), static_cast<int>(timeout));
    if (ready < 0 && errno != EINTR) return;
    if (polled_[0].revents & (POLLIN | POLLHUP | POLLERR))
      if (!frames_.receive([this](std::span<const u8> frame) { input(frame); })) return;
    library_.poll(slirp_, ready < 0, ready_events, this);
    frames_.flush();
  }
}

}  // namespace trapline::slirp
