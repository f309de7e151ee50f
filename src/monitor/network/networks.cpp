#include "monitor/network/networks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "monitor/network/stream_link.h"
#include "monitor/network/tap_link.h"

namespace trapline::monitor {

namespace {

using machine::NetConfig;
using About = VmError::About;
using Reason = VmError::Reason;

constexpr const char* kNetCommand = "__net";  // slirp/slirp_process.h

struct UserNetwork {
  Fd socket;
  HelperProcess process;
};

Result<UserNetwork, VmError> start_user_network(const NetConfig& config) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Err{VmError{About::net_user, Reason::no_descriptor, {}, errno}};
  Fd ours{ends[0]}, theirs{ends[1]};
  std::vector<std::string> words{"trapline", kNetCommand, std::to_string(theirs.get()), config.restricted ? "1" : "0",
                                 std::to_string(config.mtu)};
  words.insert(words.end(), config.forwards.begin(), config.forwards.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {  // system calls only
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::fcntl(theirs.get(), F_SETFD, 0);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    char* const no_environment[] = {nullptr};
    ::execve("/proc/self/exe", argv.data(), no_environment);
    ::execve(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)), argv.data(), no_environment);
    ::_exit(127);
  }
  if (pid < 0) return Err{VmError{About::net_user, Reason::no_process, {}, errno}};
  return UserNetwork{std::move(ours), HelperProcess{pid}};
}

// A frame that everybody answers: who has the gateway's address? Its length before it.
std::vector<u8> arp_request(const std::array<u8, 6>& mac) {
  std::vector<u8> frame{0, 0, 0, 42};
  const auto add = [&frame](std::initializer_list<u8> bytes) { frame.insert(frame.end(), bytes); };
  const auto add_mac = [&] { frame.insert(frame.end(), mac.begin(), mac.end()); };
  add({0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
  add_mac();
  add({0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1});
  add_mac();
  add({10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2});
  return frame;
}

// "tcp:127.0.0.1:2222:10.0.2.15:22" as passt has it: -t 127.0.0.1/2222:22.
void add_forward(const std::string& word, std::vector<std::string>& arguments) {
  const auto first = word.find(':'), second = word.find(':', first + 1), third = word.find(':', second + 1);
  arguments.emplace_back(word.starts_with("udp") ? "--udp-ports" : "--tcp-ports");
  arguments.push_back(word.substr(first + 1, second - first - 1) + "/" + word.substr(second + 1, third - second - 1) +
                      word.substr(word.rfind(':')));
}

// The guest has the addresses that it has under `user`. The answer to the first frame says that passt is at work; the
// guest gets it, and does not mind.
Result<OpenNetwork, VmError> start_passt(const NetConfig& config) {
  const auto wrong = [](Reason reason, int error = 0, std::string said = {}) {
    return Err{VmError{About::net_passt, reason, {}, error, 0, std::move(said)}};
  };
  const auto program = find_program("passt");
  if (!program) return wrong(Reason::not_installed);
  int ends[2];
  auto words = HelperWords::create();
  if (!words || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return wrong(Reason::no_descriptor);
  Fd ours{ends[0]}, theirs{ends[1]};
  HelperStart start{.program = *program,
                    .arguments = {"--foreground", "--quiet", "--fd", "3", "--address", "10.0.2.15", "--netmask",
                                  "255.255.255.0", "--gateway", "10.0.2.2", "--mtu", std::to_string(config.mtu)},
                    .descriptor = theirs.get(),
                    .output = words->theirs()};
  for (const std::string& word : config.forwards) add_forward(word, start.arguments);
  auto process = start_helper(start);
  if (!process) return wrong(Reason::no_process, process.error());
  words->started();
  theirs = Fd{};
  const auto question = arp_request(config.mac);
  constexpr int kPatienceMs = 10'000;
  pollfd answered{ours.get(), POLLIN, 0};
  char byte = 0;
  if (::send(ours.get(), question.data(), question.size(), MSG_NOSIGNAL) < 0 ||
      ::poll(&answered, 1, kPatienceMs) <= 0 || ::recv(ours.get(), &byte, 1, MSG_PEEK) != 1) {
    process->await_end(std::chrono::milliseconds{500});
    const std::string last = words->last_line();
    return last.empty() ? wrong(Reason::silent) : wrong(Reason::gave_up, 0, last);
  }
  OpenNetwork network;
  network.link = std::make_unique<StreamLink>(std::move(ours));
  network.settings = {config.mac, static_cast<u16>(config.mtu)};
  network.process = std::move(*process);
  network.what = "--net passt";
  network.words = std::move(*words);
  return network;
}

// By the process's first line.
Result<void, VmError> await_ready(int socket) {
  constexpr int kPatienceMs = 10'000;
  std::string line;
  for (char c = 0; line.size() < 1000; line += c) {
    pollfd ready{socket, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0 || ::read(socket, &c, 1) != 1)
      return Err{VmError{About::net_user, Reason::silent}};
    if (c == '\n') break;
  }
  if (line == "ok") return {};
  return Err{VmError{About::net_user, Reason::gave_up, {}, 0, 0, line}};
}

Result<Fd, VmError> connect_to(const std::string& path) {
  const auto wrong = [&](Reason reason, int error, u64 most = 0) {
    return Err{VmError{About::net_socket, reason, path, error, most}};
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return wrong(Reason::path_too_long, 0, sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!socket || ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return wrong(Reason::nobody_listens, errno);
  return socket;
}

}  // namespace

Result<OpenNetwork, VmError> open_network(const NetConfig& config) {
  OpenNetwork network;
  network.settings = {config.mac, static_cast<u16>(config.mtu)};
  switch (config.kind) {
    case NetConfig::Kind::user: {
      auto user = start_user_network(config);
      if (!user) return Err{user.error()};
      if (auto ready = await_ready(user->socket.get()); !ready) return Err{ready.error()};
      network.link = std::make_unique<StreamLink>(std::move(user->socket), StreamLink::Segments::of_any_size);
      network.process = std::move(user->process);
      return network;
    }
    case NetConfig::Kind::passt:
      return start_passt(config);
    case NetConfig::Kind::vhost_user: {
      auto peer = vhost::open_net_peer(config);
      if (!peer) return Err{peer.error()};
      network.peer = std::move(*peer);
      return network;
    }
    case NetConfig::Kind::socket: {
      auto socket = connect_to(config.path);
      if (!socket) return Err{socket.error()};
      network.link = std::make_unique<StreamLink>(std::move(*socket));
      return network;
    }
    case NetConfig::Kind::tap: {
      auto tap = open_tap(config.path);
      if (!tap) return Err{tap.error()};
      network.link = std::make_unique<TapLink>(std::move(*tap), true);
      return network;
    }
  }
  __builtin_unreachable();
}

}  // namespace trapline::monitor
