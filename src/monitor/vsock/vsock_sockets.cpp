#include "monitor/vsock/vsock_sockets.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace trapline::monitor {

namespace {

constexpr std::size_t kMostWaiting = 256;  // packets, each way, before nothing more is taken
constexpr std::size_t kMostGreeting = 32;
constexpr u64 kHostCid = devices::virtio::Vsock::kHostCid;
constexpr std::chrono::seconds kLastWord{8};

bool fill_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

// A name that nobody listens on any more is free.
bool is_stale(const sockaddr_un& address) {
  const Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

Result<std::unique_ptr<VsockSockets>, VmError> VsockSockets::create(const machine::VsockConfig& config) {
  using Reason = VmError::Reason;
  const auto wrong = [&](Reason reason, int error = 0, u64 most = 0) {
    return Err{VmError{VmError::About::vsock, reason, config.path, error, most}};
  };
  sockaddr_un address{};
  if (!fill_address(config.path + "_4294967295", address)) return wrong(Reason::path_too_long, 0, 96);
  fill_address(config.path, address);
  Fd listener{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  Fd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!listener || !wake) return wrong(Reason::no_descriptor);
  const auto bind = [&] {
    const mode_t before = ::umask(0077);
    const int result = ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    ::umask(before);
    return result == 0;
  };
  bool bound = bind();
  if (!bound && errno == EADDRINUSE && is_stale(address)) {
    ::unlink(config.path.c_str());
    bound = bind();
  }
  if (!bound) return wrong(Reason::cannot_bind, errno);
  ::listen(listener.get(), 64);
  return std::unique_ptr<VsockSockets>{new VsockSockets{config, std::move(listener), std::move(wake)}};
}

VsockSockets::~VsockSockets() { ::unlink(config_.path.c_str()); }

std::vector<int> VsockSockets::calls() {
  return {SYS_socket, SYS_connect, SYS_accept4, SYS_recvfrom, SYS_sendto, SYS_shutdown};
}

// -- The device's worker.

void VsockSockets::received(Packet&& packet) {
  {
    std::unique_lock guard{lock_};
    room_.wait(guard, [this] { return inbox_.size() < kMostWaiting || stopping_; });
    if (stopping_) return;
    inbox_.push_back(std::move(packet));
  }
  may_send();
}

void VsockSockets::may_send() {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void VsockSockets::started() {
  restarted_ = true;
  may_send();
}

void VsockSockets::stop() {
  {
    std::lock_guard guard{lock_};
    stopping_ = true;
  }
  room_.notify_all();
  may_send();
}

// -- The thread that owns the connections.

void VsockSockets::run() {
  connections_.clear();  // of the machine before
  outbox_.clear();
  while (!stopping_) {
    std::vector<Key> readable, writable;
    const int accepts = wait(readable, writable);
    if (restarted_.exchange(false)) {
      connections_.clear();
      outbox_.clear();
    }
    full_ = false;
    deliver();
    take_inbox();
    if (accepts) accept_one();
    for (const Key& key : writable)
      if (const auto c = connections_.find(key); c != connections_.end()) flush(key, c->second);
    for (const Key& key : readable) {
      const auto c = connections_.find(key);
      if (c == connections_.end()) continue;
      if (c->second.state == Connection::State::greets)
        greet(key, c->second);
      else if (c->second.reads())
        read_some(key, c->second);
    }
    end_those_that_are_late();
    deliver();
  }
  connections_.clear();
}

// Whether somebody knocks. Nothing is read while the guest takes nothing.
int VsockSockets::wait(std::vector<Key>& readable, std::vector<Key>& writable) {
  std::vector<pollfd> polled{{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
  std::vector<Key> keys;
  bool closing = false;
  if (connections_.size() >= kMostConnections) polled[1].fd = -1;
  for (const auto& [key, c] : connections_) {
    closing |= c.state == Connection::State::closing;
    const int events = (c.reads() && !full_ ? POLLIN : 0) | (c.writes() ? POLLOUT : 0);
    polled.push_back({events != 0 ? c.socket.get() : -1, static_cast<short>(events), 0});
    keys.push_back(key);
  }
  ::poll(polled.data(), polled.size(), closing ? 1000 : -1);
  u64 count = 0;
  if (polled[0].revents) {
    [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  }
  for (std::size_t i = 0; i < keys.size(); i++) {
    const pollfd& p = polled[i + 2];
    if (p.events & POLLIN && p.revents) readable.push_back(keys[i]);
    if (p.events & POLLOUT && p.revents) writable.push_back(keys[i]);
  }
  return polled[1].revents != 0;
}

void VsockSockets::take_inbox() {
  while (outbox_.size() < 8 * kMostWaiting) {
    Packet packet;
    {
      std::lock_guard guard{lock_};
      if (inbox_.empty()) return;
      packet = std::move(inbox_.front());
      inbox_.pop_front();
    }
    room_.notify_one();
    handle(std::move(packet));
  }
}

void VsockSockets::handle(Packet&& packet) {
  const Header h = packet.header;
  const Key key{h.to_port, h.from_port};
  const bool ours = h.to_cid == kHostCid && h.type == Header::kStream;
  const auto found = ours ? connections_.find(key) : connections_.end();
  if (found == connections_.end()) {
    if (ours && h.op == Header::request) return connect_out(key, h);
    if (h.op == Header::reset) return;
    tell(key, nullptr, Header::reset);
    outbox_.back().header.from_cid = h.to_cid;
    outbox_.back().header.type = h.type;
    return;
  }
  Connection& c = found->second;
  c.room = h.buffer;
  c.taken = h.forwarded;
  c.wants_credit = false;
  if (h.op == Header::reset) return close(key);
  if (c.state == Connection::State::requested && h.op == Header::response) {
    c.state = Connection::State::open;
    const std::string answer = fmt::format("OK {}\n", key.first);
    c.to_host.assign(answer.begin(), answer.end());
    c.forwarded -= static_cast<u32>(answer.size());  // no bytes of the guest's
    c.told = c.forwarded;
    return flush(key, c);
  }
  if (c.state == Connection::State::closing) {
    if (h.op == Header::shutdown) tell(key, &c, Header::reset), close(key);
    return;
  }
  if (c.state != Connection::State::open || h.op == Header::request || h.op == Header::response) {
    tell(key, &c, Header::reset);
    return close(key);
  }
  handle_open(key, c, std::move(packet));
}

void VsockSockets::handle_open(const Key& key, Connection& c, Packet&& packet) {
  switch (packet.header.op) {
    case Header::data:
      if (!c.guest_sends || packet.data.size() > kRoom - std::min<std::size_t>(kRoom, c.to_host.size())) {
        tell(key, &c, Header::reset);  // more than it has credit for
        return close(key);
      }
      c.to_host.insert(c.to_host.end(), packet.data.begin(), packet.data.end());
      return flush(key, c);
    case Header::shutdown:
      if (packet.header.flags & Header::kSendsNoMore) c.guest_sends = false;
      if (packet.header.flags & Header::kReceivesNoMore) c.guest_receives = false;
      return flush(key, c);
    case Header::credit_request:
      return tell(key, &c, Header::credit_update);
    default:
      return;
  }
}

void VsockSockets::connect_out(const Key& key, const Header& header) {
  sockaddr_un address{};
  fill_address(fmt::format("{}_{}", config_.path, key.first), address);
  Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (connections_.size() >= kMostConnections || !socket ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return tell(key, nullptr, Header::reset);
  Connection& c = connections_[key];
  c.socket = std::move(socket);
  c.state = Connection::State::open;
  c.room = header.buffer;
  c.taken = header.forwarded;
  tell(key, &c, Header::response);
}

void VsockSockets::accept_one() {
  Fd socket{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!socket) return;
  // Until it has said which, its guest port is none: no packet of the guest's finds it.
  while (connections_.contains({next_port_, ~u32{0}})) next_port_++;
  connections_[{next_port_++, ~u32{0}}].socket = std::move(socket);
  if (next_port_ == ~u32{0}) next_port_ = 1u << 30;
}

// By single bytes: what comes after the line is for the guest.
void VsockSockets::greet(const Key& key, Connection& c) {
  for (char byte = 0;;) {
    const ssize_t n = ::recv(c.socket.get(), &byte, 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 || c.greeting.size() > kMostGreeting) return close(key);
    if (byte == '\n') break;
    c.greeting += byte;
  }
  constexpr std::string_view kConnect = "CONNECT ";
  u32 port = 0;
  const char *first = c.greeting.data() + kConnect.size(), *last = c.greeting.data() + c.greeting.size();
  if (!c.greeting.starts_with(kConnect)) return close(key);
  const auto [end, error] = std::from_chars(first, last, port);
  const Key named{key.first, port};
  if (error != std::errc{} || end != last || port == ~u32{0} || connections_.contains(named)) return close(key);
  auto node = connections_.extract(key);
  node.key() = named;
  Connection& moved = connections_.insert(std::move(node)).position->second;
  moved.state = Connection::State::requested;
  tell(named, &moved, Header::request);
}

void VsockSockets::read_some(const Key& key, Connection& c) {
  if (outbox_.size() >= kMostWaiting) return;
  std::vector<u8> data(std::min<u32>(c.credit(), devices::virtio::Vsock::kMostData / 2));
  const ssize_t n = ::recv(c.socket.get(), data.data(), data.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {  // closed, as a whole or this way
    c.host_sends = false;
    pollfd other{c.socket.get(), POLLOUT, 0};
    const bool whole = n < 0 || (::poll(&other, 1, 0) == 1 && (other.revents & (POLLHUP | POLLERR)) != 0);
    if (whole) c.guest_sends = false, c.to_host.clear();
    tell(key, &c, Header::shutdown, Header::kSendsNoMore | (whole ? Header::kReceivesNoMore : 0));
    return settle_shutdown(key, c);
  }
  data.resize(static_cast<std::size_t>(n));
  c.sent += static_cast<u32>(n);
  tell(key, &c, Header::data, 0, std::move(data));
  if (c.credit() == 0 && !std::exchange(c.wants_credit, true)) tell(key, &c, Header::credit_request);
}

void VsockSockets::flush(const Key& key, Connection& c) {
  while (!c.to_host.empty()) {
    std::array<u8, 16 * KiB> some{};
    const std::size_t count = std::min(some.size(), c.to_host.size());
    std::copy_n(c.to_host.begin(), count, some.begin());
    const ssize_t n = ::send(c.socket.get(), some.data(), count, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (n <= 0) {  // nobody reads any more
      tell(key, &c, Header::reset);
      return close(key);
    }
    c.to_host.erase(c.to_host.begin(), c.to_host.begin() + n);
    c.forwarded += static_cast<u32>(n);
  }
  if (c.forwarded - c.told >= kRoom / 4) tell(key, &c, Header::credit_update);
  settle_shutdown(key, c);
}

// What the guest has shut down is passed on once all before it is; both ways closed, the guest has the last word.
void VsockSockets::settle_shutdown(const Key& key, Connection& c) {
  if (!c.to_host.empty()) return;
  if (!c.guest_sends && !c.guest_receives) {
    tell(key, &c, Header::reset);
    return close(key);
  }
  if (!c.guest_sends) ::shutdown(c.socket.get(), SHUT_WR);
  if (!c.guest_sends && !c.host_sends) {
    c.state = Connection::State::closing;
    c.until = Clock::now() + kLastWord;
  }
}

void VsockSockets::close(const Key& key) { connections_.erase(key); }

void VsockSockets::end_those_that_are_late() {
  const auto now = Clock::now();
  for (auto it = connections_.begin(); it != connections_.end();) {
    const bool late = it->second.state == Connection::State::closing && it->second.until <= now;
    if (late) tell(it->first, &it->second, Header::reset);
    it = late ? connections_.erase(it) : std::next(it);
  }
}

void VsockSockets::tell(const Key& key, Connection* c, Header::Op op, u32 flags, std::vector<u8> data) {
  Packet packet;
  packet.header.from_cid = kHostCid;
  packet.header.to_cid = config_.cid;
  packet.header.from_port = key.first;
  packet.header.to_port = key.second;
  packet.header.op = op;
  packet.header.flags = flags;
  packet.header.length = static_cast<u32>(data.size());
  if (c) {
    packet.header.buffer = kRoom;
    packet.header.forwarded = c->told = c->forwarded;
  }
  packet.data = std::move(data);
  outbox_.push_back(std::move(packet));
}

void VsockSockets::deliver() {
  while (!outbox_.empty() && !full_) {
    const Sent sent = send_(outbox_.front());
    full_ = sent == Sent::nothing;
    if (sent == Sent::all) outbox_.pop_front();
  }
}

}  // namespace trapline::monitor
