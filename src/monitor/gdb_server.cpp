#include "monitor/gdb_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace trapline::monitor::gdb {

namespace {

constexpr int kSendSeconds = 2;  // a client that reads nothing for so long is given up

sockaddr_in loopback(u16 port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = ::htons(port);
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  return address;
}

void prepare(int client) {
  const int on = 1;
  ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on a path's, which needs it not
  const timeval limit{kSendSeconds, 0};
  ::setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

Result<Fd, VmError> listen_on_loopback(u16 port) {
  Fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const int on = 1;
  const sockaddr_in address = loopback(port);
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || ::listen(fd.get(), 1) != 0)
    return Err{VmError{VmError::About::gdb, VmError::Reason::address_taken, std::to_string(port), errno}};
  return fd;
}

namespace {

std::string g_path;  // of the socket that listens
struct stat g_made {};

// What is left of a run that was killed: a socket that nobody listens on.
void remove_stale(const sockaddr_un& address) {
  struct stat there {};
  const Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (::lstat(address.sun_path, &there) != 0 || !S_ISSOCK(there.st_mode) || there.st_uid != ::geteuid()) return;
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno == ECONNREFUSED)
    ::unlink(address.sun_path);
}

}  // namespace

Result<Fd, VmError> listen_on_path(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  remove_stale(address);
  Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const mode_t before = ::umask(0177);  // no moment at which others may connect
  const bool bound = fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int error = errno;
  ::umask(before);
  if (!bound || ::listen(fd.get(), 1) != 0)
    return Err{VmError{VmError::About::gdb, VmError::Reason::path_taken, path, bound ? errno : error}};
  if (::lstat(path.c_str(), &g_made) == 0) g_path = path;
  return fd;
}

void forget_path() {
  struct stat there {};
  if (g_path.empty() || ::lstat(g_path.c_str(), &there) != 0) return;
  if (there.st_dev == g_made.st_dev && there.st_ino == g_made.st_ino) ::unlink(g_path.c_str());
}

Server::Server(Fd listener, bool wait, Hooks hooks)
    : listener_{std::move(listener)},
      failed_{hooks.failed},
      target_{{.paused = [this] { wake(); },
               .nudge = std::move(hooks.nudge),
               .end = std::move(hooks.end),
               .failed = hooks.failed}},
      hold_{wait},
      wait_{wait},
      thread_{start_confined_thread([this] { serve(); }, failed_)} {}

Server::~Server() {
  finish(0, 0);
  target_.detach();
}

void Server::core_starting(channel::Channel& channel) {
  target_.attach(channel, wait_ && !started_);
  started_ = true;
}

void Server::finish(int code, int signal) {
  if (!thread_.joinable()) return;
  code_ = code, signal_ = signal;
  ending_ = true;
  wake();
  thread_.join();
}

void Server::wake() { event_.set(); }

// -- The server's thread
void Server::serve() {
  while (!ending_) {
    // A client is heard once its session has begun; until then its bytes wait in the socket.
    pollfd p[3] = {
        {event_.fd(), POLLIN, 0}, {client_ ? -1 : listener_.get(), POLLIN, 0}, {stub_ ? client_.get() : -1, POLLIN, 0}};
    if (::poll(p, 3, -1) < 0) continue;
    if (p[0].revents) on_pause();
    if (p[1].revents) accept_client();
    if (p[2].revents && stub_) read_client();
    if (stub_ && (stub_->closed() || send_failed_)) hang_up();
  }
  say_goodbye();
}

void Server::accept_client() {
  client_ = Fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  if (!client_) return;
  prepare(client_.get());
  target_.set_listening(true);
  if (target_.paused())
    start_session(Stop{});
  else
    target_.interrupt();
}

void Server::on_pause() {
  event_.clear();
  const auto stop = target_.take_stop();
  if (!stop) return;
  if (stub_)
    stub_->stopped(*stop);
  else if (client_)
    start_session(*stop);
  else if (!hold_)
    resume_all();
}

void Server::start_session(const Stop& stop) {
  send_failed_ = false;
  stub_ = std::make_unique<Stub>(target_, settings_, stop, [this](std::string_view bytes) {
    if (!send_failed_ && !send_all(client_.get(), bytes)) send_failed_ = true;
  });
}

void Server::read_client() {
  u8 bytes[16384];
  const ssize_t n = ::recv(client_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (n > 0) return stub_->receive({bytes, static_cast<std::size_t>(n)});
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  send_failed_ = true;
}

// Its breakpoints go with the client. A running VM stops for a moment to forget them (on_pause lets it go on).
void Server::hang_up() {
  const bool running = stub_->running(), detached = stub_->closed();
  stub_.reset();
  client_ = Fd{};
  target_.set_listening(false);
  hold_ = !running;
  if (detached) return;
  target_.set_stops({});
  if (running) target_.interrupt();
}

void Server::say_goodbye() {
  if (stub_) stub_->ended(code_, signal_);
  stub_.reset();
  client_ = Fd{};
}

}  // namespace trapline::monitor::gdb
