#include "monitor/console_keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <list>
#include <optional>
#include <thread>
#include <vector>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "monitor/console_log.h"
#include "monitor/registry.h"
#include "monitor/terminal.h"

namespace trapline::monitor {

namespace {

constexpr std::size_t kMostWaiting = 256 * KiB;  // for a client; one who reads slower is let go
constexpr std::size_t kShownFirst = 4 * KiB;     // of what was said before a client came
constexpr int kLookForNameMs = 20;
constexpr u8 kEscape = 1;  // Ctrl-A

int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// Where a path is longer than sun_path, its folder's descriptor is not.
sockaddr_un address_of(const Fd& folder, const std::string& name) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder.get(), Registry::console_name(name));
  std::memcpy(at.sun_path, path.c_str(), std::min(path.size(), sizeof at.sun_path - 1));
  return at;
}

struct Client {
  Fd fd;
  std::string waiting;
  bool gone = false;
};

class Keeper {
 public:
  // `console`: the VM's streams; `front`: the command that waits for a name.
  Keeper(pid_t vm, Fd console, Fd front) : vm_{vm}, console_{std::move(console)}, front_{std::move(front)} {}

  int run() {
    while (step()) {
    }
    int status = 0;
    while (::waitpid(vm_, &status, 0) < 0 && errno == EINTR) {
    }
    if (front_) tell(fmt::format("{}\n{}", code_of(status), recent_));
    if (registry_) ::unlinkat(registry_->folder().get(), Registry::console_name(name_).c_str(), 0);
    return 0;
  }

 private:
  // False: the VM has closed its end.
  bool step() {
    std::vector<pollfd> p{{console_.get(), static_cast<short>(POLLIN | (to_vm_.empty() ? 0 : POLLOUT)), 0},
                          {listener_.get(), POLLIN, 0}};
    for (const Client& c : clients_)
      p.push_back({c.fd.get(),
                   static_cast<short>((to_vm_.size() < kMostWaiting ? POLLIN : 0) | (c.waiting.empty() ? 0 : POLLOUT)),
                   0});
    ::poll(p.data(), p.size(), front_ ? kLookForNameMs : -1);
    if (front_) look_for_name();
    if (p[0].revents && !serve_console(p[0].revents)) return false;
    std::size_t i = 2;
    for (Client& c : clients_) serve(c, p[i++].revents);
    clients_.remove_if([](const Client& c) { return c.gone; });
    if (p[1].revents) welcome();
    return true;
  }

  bool serve_console(short events) {
    if (events & POLLOUT) {
      const ssize_t n = ::send(console_.get(), to_vm_.data(), to_vm_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) to_vm_.erase(0, static_cast<std::size_t>(n));
    }
    if (!(events & (POLLIN | POLLHUP | POLLERR))) return true;
    char bytes[16 * KiB];
    const ssize_t n = ::read(console_.get(), bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (n <= 0) return false;
    const std::string_view text{bytes, static_cast<std::size_t>(n)};
    if (registry_) log_.write(text);
    recent_ += text;
    if (const std::size_t most = registry_ ? kShownFirst : kMostWaiting; recent_.size() > most)
      recent_.erase(0, recent_.size() - most);
    for (Client& c : clients_) {
      c.waiting += text;
      c.gone = c.waiting.size() > kMostWaiting;
    }
    return true;
  }

  void serve(Client& c, short events) {
    if (events & POLLOUT) {
      const ssize_t n = ::send(c.fd.get(), c.waiting.data(), c.waiting.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) c.waiting.erase(0, static_cast<std::size_t>(n));
    }
    if (!(events & (POLLIN | POLLHUP | POLLERR))) return;
    char bytes[4 * KiB];
    const ssize_t n = ::recv(c.fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
      to_vm_.append(bytes, static_cast<std::size_t>(n));
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
      c.gone = true;
  }

  void welcome() {
    Fd fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (fd) clients_.push_back({std::move(fd), recent_, false});
  }

  // The VM enters its name itself.
  void look_for_name() {
    auto registry = Registry::open();
    if (!registry) return;
    for (const RunningVm& vm : registry->all())
      if (vm.pid == vm_) name_ = vm.name;
    if (name_.empty()) return;
    registry_ = std::move(*registry);
    log_.open(name_);
    log_.write(recent_);
    listen_for_clients();
    tell("0\n" + name_ + "\n");
    const Fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (int fd : {0, 1, 2}) ::dup2(null.get(), fd);  // nobody waits for this process
  }

  void listen_for_clients() {
    listener_ = Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    const sockaddr_un at = address_of(registry_->folder(), name_);
    ::unlinkat(registry_->folder().get(), Registry::console_name(name_).c_str(), 0);
    ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at);
    ::listen(listener_.get(), 8);
  }

  void tell(const std::string& text) {
    write_all(front_.get(), text);
    front_ = Fd{};
  }

  const pid_t vm_;
  Fd console_, front_, listener_;
  std::optional<Registry> registry_;  // once the VM has a name
  std::string name_, recent_, to_vm_;
  ConsoleLog log_;
  std::list<Client> clients_;
};

// In the keeper: forks the VM and keeps its console.
[[noreturn]] void keep(const std::function<int()>& vm, Fd front) {
  ::setsid();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) ::_exit(1);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setsid();
    for (int fd : {0, 1, 2}) ::dup2(ends[1], fd);
    ::close(ends[0]), ::close(ends[1]), ::close(front.release());
    ::_exit(vm());
  }
  ::close(ends[1]);
  ::signal(SIGHUP, SIG_IGN), ::signal(SIGPIPE, SIG_IGN);
  if (::chdir("/") != 0) errno = 0;
  ::_exit(Keeper{pid, Fd{ends[0]}, std::move(front)}.run());
}

// Of what is typed: what the guest gets; true when the user leaves.
class Keys {
 public:
  bool take(std::string_view typed, std::string& to_guest) {
    for (const char c : typed) {
      if (!escaped_ && static_cast<u8>(c) == kEscape) {
        escaped_ = true;
        continue;
      }
      if (std::exchange(escaped_, false)) {
        if (c == 'd' || c == 'D') return true;
        if (static_cast<u8>(c) != kEscape) continue;
      }
      to_guest += c;
    }
    return false;
  }

 private:
  bool escaped_ = false;
};

// Until the socket closes, or the user leaves.
int relay(const Fd& socket, bool terminal) {
  Keys keys;
  bool reading = true;
  for (char bytes[4 * KiB];;) {
    pollfd p[2] = {{socket.get(), POLLIN, 0}, {reading ? STDIN_FILENO : -1, POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) return 1;
    if (p[0].revents) {
      const ssize_t n = ::read(socket.get(), bytes, sizeof bytes);
      if (n == 0 || (n < 0 && errno != EINTR)) return 0;
      if (n > 0 && write_all(STDOUT_FILENO, {bytes, static_cast<std::size_t>(n)}) != 0)
        return static_cast<int>(ExitCode::console_lost);
    }
    if (!p[1].revents) continue;
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0) {
      reading = n < 0 && errno == EINTR;
      continue;
    }
    std::string to_guest{bytes, static_cast<std::size_t>(n)};
    if (terminal) {
      to_guest.clear();
      if (keys.take({bytes, static_cast<std::size_t>(n)}, to_guest)) return 0;
    }
    if (write_all(socket.get(), to_guest) != 0) return 0;
  }
}

}  // namespace

int run_detached(const std::function<int()>& vm, const Speaker& speaker) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return static_cast<int>(ExitCode::host_refused);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(ends[0]);
    keep(vm, Fd{ends[1]});
  }
  ::close(ends[1]);
  std::string answer;
  char bytes[4 * KiB];
  for (ssize_t n; (n = ::read(ends[0], bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR);)
    if (n > 0) answer.append(bytes, static_cast<std::size_t>(n));
  ::close(ends[0]);
  if (pid < 0 || answer.empty()) {
    speaker.line("--detach: no process for it: raise the limit of processes (ulimit -u)", -1);
    return static_cast<int>(ExitCode::host_refused);
  }
  const auto line = answer.find('\n');
  const int code = std::atoi(answer.c_str());
  write_all(code == 0 ? STDOUT_FILENO : STDERR_FILENO, std::string_view{answer}.substr(line + 1));
  return code;
}

int attach_console(const std::string& name, const Speaker& speaker) {
  const auto failed = [&](const std::string& why) {
    speaker.line(why, -1);
    return static_cast<int>(ExitCode::bad_input);
  };
  const auto registry = Registry::open();
  if (!registry) return failed(speaker.words(registry.error()));
  if (const auto vm = registry->find(name); !vm) return failed("console " + speaker.words(vm.error()));
  const Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const sockaddr_un at = address_of(registry->folder(), name);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0)
    return failed(fmt::format("console {}: it has a terminal of its own: start it with --detach", name));
  install_terminal_guard();
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) speaker.line(fmt::format("on the console of {}: Ctrl-A D leaves it", name), -1);
  Terminal raw;
  raw.begin();
  const int code = relay(socket, terminal);
  raw.finish();
  return code;
}

int show_log(const std::string& name, bool follow, const Speaker& speaker) {
  const std::string path = Registry::is_name(name) ? log_path(name) : std::string{};
  const Fd log{path.empty() ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!log) {
    speaker.line(fmt::format("logs {}: no log of such a VM: VMs that run --detach have one", name), -1);
    return static_cast<int>(ExitCode::bad_input);
  }
  const auto registry = Registry::open();
  for (bool last = false;;) {
    char bytes[16 * KiB];
    const ssize_t n = ::read(log.get(), bytes, sizeof bytes);
    if (n > 0) {
      if (write_all(STDOUT_FILENO, {bytes, static_cast<std::size_t>(n)}) != 0)
        return static_cast<int>(ExitCode::console_lost);
      continue;
    }
    if (!follow || last) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    last = !registry || !registry->find(name);
  }
}

}  // namespace trapline::monitor
