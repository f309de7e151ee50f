#include "monitor/vhost/vhost_link.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

namespace trapline::monitor::vhost {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{5000}, kHurriedPatience{1000};
constexpr int kLookAgainMs = 50;
constexpr std::size_t kMostDescriptors = 8;
constexpr const char* kNonsense = "it does not keep to the vhost-user protocol";

template <class T>
std::optional<T> plain(const std::optional<std::vector<std::byte>>& bytes) {
  if (!bytes || bytes->size() != sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes->data(), sizeof value);
  return value;
}

}  // namespace

const char* name_of(Command command) {
  switch (command) {
    case Command::get_features:
      return "GET_FEATURES";
    case Command::set_features:
      return "SET_FEATURES";
    case Command::set_owner:
      return "SET_OWNER";
    case Command::set_mem_table:
      return "SET_MEM_TABLE";
    case Command::set_vring_num:
      return "SET_VRING_NUM";
    case Command::set_vring_addr:
      return "SET_VRING_ADDR";
    case Command::set_vring_base:
      return "SET_VRING_BASE";
    case Command::get_vring_base:
      return "GET_VRING_BASE";
    case Command::set_vring_kick:
      return "SET_VRING_KICK";
    case Command::set_vring_call:
      return "SET_VRING_CALL";
    case Command::get_protocol_features:
      return "GET_PROTOCOL_FEATURES";
    case Command::set_protocol_features:
      return "SET_PROTOCOL_FEATURES";
    case Command::get_queue_num:
      return "GET_QUEUE_NUM";
    case Command::set_vring_enable:
      return "SET_VRING_ENABLE";
    case Command::get_config:
      return "GET_CONFIG";
  }
  return "?";
}

Link::Link(Fd socket) : socket_{std::move(socket)} {}

// The latter two for adopt().
std::vector<int> Link::calls() { return {SYS_sendmsg, SYS_socket, SYS_connect}; }

void Link::close(std::string why) {
  if (!socket_) return;
  socket_ = Fd{};
  why_ = std::move(why);
}

void Link::adopt(Link&& fresh) {
  socket_ = std::move(fresh.socket_);
  acknowledges_ = fresh.acknowledges_;
  why_.clear();
}

void Link::heard_unasked() {
  char byte = 0;
  const ssize_t n = ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  close(n > 0 ? kNonsense : "it has ended");
}

// In slices, so that hurry() is heard.
bool Link::await(short events, Clock::time_point begun) {
  for (;;) {
    pollfd ready{socket_.get(), events, 0};
    if (::poll(&ready, 1, kLookAgainMs) > 0) return true;
    if (Clock::now() < begun + (hurried_ ? kHurriedPatience : kPatience)) continue;
    close("it does not answer");
    return false;
  }
}

// A message is far smaller than a socket's buffer, and only one is under way: it goes at once, or not at all.
bool Link::send(Command command, std::span<const std::byte> payload, std::span<const int> descriptors,
                bool wants_reply) {
  if (!socket_ || descriptors.size() > kMostDescriptors) return false;
  Header header{static_cast<u32>(command), kVersion | (wants_reply ? kNeedReply : 0), static_cast<u32>(payload.size())};
  iovec parts[] = {{&header, sizeof header}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  for (const auto begun = Clock::now();;) {
    const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n == static_cast<ssize_t>(sizeof header + payload.size())) return true;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (!await(POLLOUT, begun)) return false;
      continue;
    }
    close(n < 0 ? "it has ended" : "it does not take what it is told");
    return false;
  }
}

bool Link::receive(std::span<std::byte> to, Clock::time_point begun) {
  while (!to.empty()) {
    const ssize_t n = ::recv(socket_.get(), to.data(), to.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (!await(POLLIN, begun)) return false;
      continue;
    }
    if (n <= 0) return close("it has ended"), false;
    to = to.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

std::optional<std::vector<std::byte>> Link::reply(Command command, std::size_t least, std::size_t most) {
  const auto begun = Clock::now();
  Header header{};
  if (!receive(std::as_writable_bytes(std::span{&header, 1}), begun)) return std::nullopt;
  if (header.command != static_cast<u32>(command) || (header.flags & kVersionMask) != kVersion ||
      !(header.flags & kReply) || header.bytes < least || header.bytes > most) {
    close(kNonsense);
    return std::nullopt;
  }
  std::vector<std::byte> bytes(header.bytes);
  if (!receive(bytes, begun)) return std::nullopt;
  return bytes;
}

bool Link::tell(Command command, std::span<const std::byte> payload, std::span<const int> descriptors) {
  if (!send(command, payload, descriptors, acknowledges_)) return false;
  if (!acknowledges_) return true;
  const auto answer = plain<u64>(reply(command, sizeof(u64), sizeof(u64)));
  if (answer && *answer != 0) close(fmt::format("it refuses {}", name_of(command)));
  return answer && *answer == 0;
}

std::optional<u64> Link::ask(Command command) {
  if (!send(command, {}, {}, false)) return std::nullopt;
  return plain<u64>(reply(command, sizeof(u64), sizeof(u64)));
}

std::optional<u32> Link::stop_ring(u32 index) {
  const RingState which{index, 0};
  if (!send(Command::get_vring_base, std::as_bytes(std::span{&which, 1}), {}, false)) return std::nullopt;
  const auto state = plain<RingState>(reply(Command::get_vring_base, sizeof which, sizeof which));
  if (!state) return std::nullopt;
  return state->number;
}

// As many bytes as there are; what lies behind them is zeros.
std::optional<std::vector<u8>> Link::ask_config(u32 bytes) {
  std::vector<std::byte> message(sizeof(ConfigHeader) + bytes);
  const ConfigHeader head{0, bytes, 0};
  std::memcpy(message.data(), &head, sizeof head);
  if (!send(Command::get_config, message, {}, false)) return std::nullopt;
  const auto answer = reply(Command::get_config, 0, sizeof head + kMostConfig);
  if (!answer) return std::nullopt;
  if (answer->size() < sizeof head) return close("it refuses GET_CONFIG"), std::nullopt;
  std::vector<u8> config(bytes);
  std::memcpy(config.data(), answer->data() + sizeof head, std::min<std::size_t>(bytes, answer->size() - sizeof head));
  return config;
}

Result<Fd, VmError> connect_to_back_end(const std::string& path, VmError::About about) {
  const auto wrong = [&](VmError::Reason reason, int error, u64 most = 0) {
    return Err{VmError{about, reason, path, error, most}};
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return wrong(VmError::Reason::path_too_long, 0, sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket) return wrong(VmError::Reason::no_descriptor, errno);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    if (errno != EAGAIN || std::chrono::steady_clock::now() > until)
      return wrong(VmError::Reason::nobody_listens, errno);
    std::this_thread::sleep_for(milliseconds{kLookAgainMs});
  }
  return socket;
}

}  // namespace trapline::monitor::vhost
