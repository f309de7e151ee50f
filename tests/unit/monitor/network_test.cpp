// Links over sockets: framing, slow readers, hostile lengths, and their end.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "monitor/network/networks.h"
#include "monitor/network/stream_link.h"
#include "monitor/network/tap_link.h"
#include "wording/vm_error.h"

namespace trapline::monitor {
namespace {

using testing::HasSubstr;

struct Pair {
  int fd[2];
  explicit Pair(int type) { EXPECT_EQ(::socketpair(AF_UNIX, type, 0, fd), 0); }
};

struct StreamTest : testing::Test {
  Pair pair{SOCK_STREAM};
  StreamLink link{Fd{pair.fd[0]}};
  Fd other{pair.fd[1]};
  std::atomic<unsigned> refusals{0}, closings{0};
  std::vector<std::vector<std::byte>> frames;
  std::atomic<std::size_t> count{0};
  std::thread receiver;

  void receive() {
    receiver = std::thread{[this] {
      link.receive(
          [this](std::span<const NetLink::Frame> some) {
            if (refusals > 0) return refusals--, std::size_t{0};
            const NetLink::Frame f = some[0];
            frames.emplace_back(f.begin(), f.end());
            count++;
            if (some.size() > 1) link.retry();  // one by one
            return std::size_t{1};
          },
          [this] { closings++; });
    }};
  }
  ~StreamTest() override {
    link.stop();
    if (receiver.joinable()) receiver.join();
  }
  void put(u32 length, const std::string& bytes) {
    const u32 big = htonl(length);
    EXPECT_EQ(::write(other.get(), &big, 4), 4);
    EXPECT_EQ(::write(other.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  void await(std::size_t n) {
    while (count < n) std::this_thread::yield();
  }
};

TEST_F(StreamTest, FramesGoOutBehindTheirLength) {
  char hello[] = "hello", there[] = "there";
  const iovec parts[] = {{hello, 5}, {there, 5}};
  link.send(parts);
  char bytes[32];
  ASSERT_EQ(::read(other.get(), bytes, sizeof bytes), 14);
  EXPECT_EQ((std::string{bytes, 14}), (std::string{"\0\0\0\x0ahellothere", 14}));
}

TEST_F(StreamTest, FramesComeHoweverTheyAreCut) {
  receive();
  put(3, "abc");
  put(0, "");
  put(5, "de");
  await(2);
  EXPECT_EQ(::write(other.get(), "fgh", 3), 3);
  await(3);
  EXPECT_EQ(frames[0].size(), 3u);
  EXPECT_EQ(frames[1].size(), 0u);
  EXPECT_EQ(static_cast<char>(frames[2][4]), 'h');
}

TEST_F(StreamTest, WhatIsNotTakenIsTriedAgain) {
  refusals = 2;
  receive();
  put(3, "abc");
  put(3, "def");
  while (refusals > 1) std::this_thread::yield();
  link.retry();
  while (refusals > 0) std::this_thread::yield();
  link.retry();
  await(2);
  EXPECT_EQ(static_cast<char>(frames[0][0]), 'a');
  EXPECT_EQ(static_cast<char>(frames[1][0]), 'd');
}

TEST_F(StreamTest, ManyLargeFramesBothWays) {
  receive();
  std::vector<char> big(65550, 'x');
  std::thread sender{[&] {
    for (unsigned i = 0; i < 50; i++) put(65550, {big.data(), big.size()});
  }};
  std::size_t got = 0;
  std::thread reader{[&] {
    std::vector<char> sink(1 << 20);
    for (ssize_t n; got < 50 * 65554 && (n = ::read(other.get(), sink.data(), sink.size())) > 0;)
      got += static_cast<std::size_t>(n);
  }};
  for (unsigned i = 0; i < 50; i++) {
    const iovec part{big.data(), big.size()};
    link.send({&part, 1});
  }
  sender.join();
  reader.join();
  await(50);
  EXPECT_EQ(got, 50u * 65554);
}

TEST_F(StreamTest, ALengthThatCannotBeEndsTheLink) {
  receive();
  put(3, "abc");
  put(65551, "");
  while (closings == 0) std::this_thread::yield();
  EXPECT_EQ(count, 1u);
  char byte = 0;
  const iovec part{&byte, 1};
  link.send({&part, 1});  // to nobody, and without waiting
}

TEST_F(StreamTest, AnEndThatIsGoneEndsTheLinkAndNotUs) {
  receive();
  other = Fd{};
  while (closings == 0) std::this_thread::yield();
  char byte = 0;
  const iovec part{&byte, 1};
  for (unsigned i = 0; i < 10; i++) link.send({&part, 1});
}

TEST_F(StreamTest, StopFreesOneThatWaitsForAReader) {
  std::vector<char> big(65550, 'x');
  std::thread sender{[&] {
    const iovec part{big.data(), big.size()};
    for (unsigned i = 0; i < 100; i++) link.send({&part, 1});
  }};
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  link.stop();
  sender.join();
}

// A packet socket behaves as a TAP interface does.
TEST(TapLink, AReadIsAFrameAndAWriteIsOne) {
  Pair pair{SOCK_SEQPACKET | SOCK_NONBLOCK};
  TapLink link{Fd{pair.fd[0]}, false};
  Fd other{pair.fd[1]};
  char a[] = "ab", c[] = "c";
  const iovec parts[] = {{a, 2}, {c, 1}};
  link.send(parts);
  char bytes[16];
  EXPECT_EQ(::read(other.get(), bytes, sizeof bytes), 3);
  std::atomic<std::size_t> got{0};
  std::atomic<bool> refuse{true}, closed{false};
  std::thread receiver{[&] {
    link.receive(
        [&](std::span<const NetLink::Frame> frames) {
          if (refuse.exchange(false)) return 0;
          got = frames[0].size();
          return 1;
        },
        [&] { closed = true; });
  }};
  EXPECT_EQ(::write(other.get(), "frame", 5), 5);
  while (refuse) std::this_thread::yield();
  link.retry();
  while (got != 5) std::this_thread::yield();
  other = Fd{};
  while (!closed) std::this_thread::yield();
  link.stop();
  receiver.join();
}

TEST(OpenNetwork, WhatCannotBeIsNamedWithItsRemedy) {
  machine::NetConfig socket;
  socket.kind = machine::NetConfig::Kind::socket;
  socket.path = "/nowhere/passt";
  EXPECT_THAT(wording::line(open_network(socket).error()), HasSubstr("--net socket,path=/nowhere/passt: No such file"));
  machine::NetConfig tap;
  tap.kind = machine::NetConfig::Kind::tap;
  tap.path = "no-such-interface-has-so-long-a-name";
  EXPECT_THAT(wording::line(open_network(tap).error()), HasSubstr("--net tap,ifname=no-such"));
}

}  // namespace
}  // namespace trapline::monitor
