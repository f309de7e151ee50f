// Reading by the NBD protocol, from servers that keep to it and others.
#include "volume/nbd_source.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

namespace trapline::volume {
namespace {

constexpr u64 kBytes = 40 * MiB;

u64 big_endian(const u8* at, unsigned n) {
  u64 value = 0;
  for (unsigned i = 0; i < n; i++) value = value << 8 | at[i];
  return value;
}

// Answers read requests of a disk whose byte n is n / 4096 + n, until the other side is gone; `spoil` may change what goes out.
class Server {
 public:
  using Spoil = std::function<void(std::vector<u8>& answer)>;
  explicit Server(Spoil spoil = {}) {
    ::signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_), 0);
    thread_ = std::thread{[this, spoil] { serve(spoil); }};
  }
  ~Server() {
    ::close(ends_[0]);
    thread_.join();
  }
  int socket() const { return ends_[0]; }
  static u8 byte(u64 n) { return static_cast<u8>(n / 4096 + n); }
  unsigned requests() const { return requests_; }

 private:
  void serve(const Spoil& spoil) {
    std::array<u8, 28> request;
    while (::recv(ends_[1], request.data(), request.size(), MSG_WAITALL) == 28) {
      requests_++;
      const u64 offset = big_endian(&request[16], 8), length = big_endian(&request[24], 4);
      std::vector<u8> answer(16 + length);
      constexpr std::array<u8, 4> kReply{0x67, 0x44, 0x66, 0x98};
      std::copy(kReply.begin(), kReply.end(), answer.begin());
      std::copy_n(&request[8], 8, &answer[8]);
      for (u64 i = 0; i < length; i++) answer[16 + i] = byte(offset + i);
      if (spoil) spoil(answer);
      if (::send(ends_[1], answer.data(), answer.size(), MSG_NOSIGNAL) < 0 || answer.size() < 16) break;
    }
    ::close(ends_[1]);
  }
  int ends_[2];
  std::thread thread_;
  std::atomic<unsigned> requests_{0};
};

TEST(NbdSource, ReadsWhatIsThere) {
  Server server;
  const NbdSource disk{server.socket(), kBytes};
  EXPECT_EQ(disk.size(), kBytes);
  std::vector<u8> all(33 * MiB);  // more than one request may ask for
  ASSERT_TRUE(disk.read(12345, all));
  for (u64 i = 0; i < all.size(); i += 4093) ASSERT_EQ(all[i], Server::byte(12345 + i)) << i;
  EXPECT_EQ(server.requests(), 3u);
  std::array<u8, 3> end;
  ASSERT_TRUE(disk.read(kBytes - 3, end));
  EXPECT_EQ(end[2], Server::byte(kBytes - 1));
}

TEST(NbdSource, NothingIsAskedPastTheEnd) {
  Server server;
  const NbdSource disk{server.socket(), kBytes};
  std::array<u8, 4> to;
  EXPECT_FALSE(disk.read(kBytes - 3, to));
  EXPECT_FALSE(disk.read(~u64{0}, to));
  EXPECT_EQ(server.requests(), 0u);
  EXPECT_TRUE(disk.read(0, to));
}

TEST(NbdSource, AServerThatMakesNoSenseIsNotReadOn) {
  const Server::Spoil spoils[] = {
      [](auto& answer) { answer[0] ^= 1; },     // no reply
      [](auto& answer) { answer[7] = 5; },      // EIO
      [](auto& answer) { answer[15] ^= 1; },    // of another request
      [](auto& answer) { answer.resize(15); },  // half a reply, then the end
  };
  for (const auto& spoil : spoils) {
    Server server{spoil};
    const NbdSource disk{server.socket(), kBytes};
    std::array<u8, 8> to;
    EXPECT_FALSE(disk.read(0, to));
    EXPECT_FALSE(disk.read(0, to));
    EXPECT_EQ(server.requests(), 1u);
  }
}

}  // namespace
}  // namespace trapline::volume
