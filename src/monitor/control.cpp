#include "monitor/control.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

namespace trapline::monitor {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kLongest = 256;             // of a line
constexpr milliseconds kClientsPatience{1000};    // for a client's whole line
constexpr milliseconds kAnswersPatience{10'000};  // for a VM that is busy with another client

sockaddr_un address_of(const Fd& folder, const std::string& file) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder.get(), file);
  std::memcpy(at.sun_path, path.c_str(), std::min(path.size(), sizeof at.sun_path - 1));
  return at;
}

// Up to the first newline; what is there when the time or the connection ends without one is no line.
std::string read_line(int fd, int end, milliseconds patience) {
  std::string line;
  for (const auto limit = steady_clock::now() + patience; line.size() < kLongest;) {
    const auto rest = std::chrono::ceil<milliseconds>(limit - steady_clock::now());
    pollfd p[2] = {{fd, POLLIN, 0}, {end, POLLIN, 0}};
    if (rest.count() <= 0 || ::poll(p, 2, static_cast<int>(rest.count())) < 0 || p[1].revents) break;
    char bytes[kLongest];
    const ssize_t n = p[0].revents ? ::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) : -1;
    if (p[0].revents && n <= 0) break;
    if (n > 0) line.append(bytes, static_cast<std::size_t>(n));
    if (const auto newline = line.find('\n'); newline != std::string::npos) return line.substr(0, newline);
  }
  return {};
}

}  // namespace

ControlSocket::ControlSocket(const Registry& registry, const std::string& name, Answer answer, OnFailure failed)
    : answer_{std::move(answer)},
      folder_{::fcntl(registry.folder().get(), F_DUPFD_CLOEXEC, 3)},
      listener_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)},
      file_{Registry::control_name(name)} {
  const sockaddr_un at = address_of(folder_, file_);
  ::unlinkat(folder_.get(), file_.c_str(), 0);  // the name is ours: what lies there is of one that crashed
  if (!listener_ || ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      ::listen(listener_.get(), 8) != 0)
    return;
  thread_ = start_confined_thread([this] { serve(); }, std::move(failed));
}

ControlSocket::~ControlSocket() {
  end_.set();
  if (thread_.joinable()) thread_.join();
  ::unlinkat(folder_.get(), file_.c_str(), 0);
}

void ControlSocket::serve() {
  for (;;) {
    pollfd p[2] = {{listener_.get(), POLLIN, 0}, {end_.fd(), POLLIN, 0}};
    ::poll(p, 2, -1);
    if (p[1].revents) return;
    if (!p[0].revents) continue;
    if (const Fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)}; client) serve_client(client);
  }
}

void ControlSocket::serve_client(const Fd& client) {
  const std::string request = read_line(client.get(), end_.fd(), kClientsPatience);
  if (request.empty()) return;
  const std::string answer = answer_(request) + "\n";
  (void)::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<std::string, VmError> ask_vm(const Registry& registry, const std::string& name, const std::string& request) {
  using Reason = VmError::Reason;
  const auto wrong = [&](Reason reason, int error = 0) {
    return Err{VmError{VmError::About::vm, reason, name, error}};
  };
  const Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)}, none;
  const sockaddr_un at = address_of(registry.folder(), Registry::control_name(name));
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0)
    return wrong(Reason::takes_no_requests, errno);
  const std::string line = request + "\n";
  if (::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL) < 0) return wrong(Reason::took_no_request, errno);
  std::string answer = read_line(socket.get(), none.get(), kAnswersPatience);
  if (answer.empty()) return wrong(Reason::no_answer);
  return answer;
}

}  // namespace trapline::monitor
