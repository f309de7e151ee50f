// A small GDB remote protocol client for tests of a running VM, independent of the stub's own packet code.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>

namespace trapline::test {

// A port of 127.0.0.1 that was free a moment ago.
inline std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool ok = ::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  ::close(fd);
  return ok ? ntohs(address.sin_port) : 0;
}

class RspClient {
 public:
  // Tries for some seconds: the server may still be starting.
  explicit RspClient(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int attempt = 0; attempt < 200; attempt++) {
      fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) break;
      ::close(fd_);
      fd_ = -1;
      std::this_thread::sleep_for(std::chrono::milliseconds{25});
    }
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const timeval limit{30, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~RspClient() { close(); }
  RspClient(const RspClient&) = delete;

  bool connected() const { return fd_ >= 0; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void send_raw(const std::string& bytes) { (void)!::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  void send(const std::string& payload) {
    unsigned char sum = 0;
    for (const char c : payload) sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(c));
    char tail[4];
    std::snprintf(tail, sizeof tail, "#%02x", sum);
    send_raw("$" + payload + tail);
  }
  void interrupt() { send_raw("\x03"); }
  // The next packet's payload, acknowledged; "(closed)" when none comes.
  std::string receive() {
    std::string payload;
    char c;
    do
      if (!get(c)) return "(closed)";
    while (c != '$');
    while (get(c) && c != '#') payload += c;
    get(c), get(c);
    send_raw("+");
    return payload;
  }
  std::string ask(const std::string& payload) {
    send(payload);
    return receive();
  }
  // Register `number` of the current thread as a number (little-endian hexadecimal).
  std::uint64_t reg(unsigned number) {
    char text[16];
    std::snprintf(text, sizeof text, "p%x", number);
    return number_of(ask(text));
  }
  static std::uint64_t number_of(const std::string& hex) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i + 1 < hex.size() && i < 16; i += 2)
      value |= static_cast<std::uint64_t>(std::stoul(hex.substr(i, 2), nullptr, 16)) << (i * 4);
    return value;
  }

 private:
  bool get(char& c) { return ::recv(fd_, &c, 1, 0) == 1; }
  int fd_ = -1;
};

}  // namespace trapline::test
