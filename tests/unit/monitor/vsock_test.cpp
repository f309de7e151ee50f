// The host's side of virtio-vsock against a guest that a test plays: who connects, credit, how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "monitor/vsock/vsock_sockets.h"
#include "wording/vm_error.h"

namespace trapline::monitor {
namespace {

using Header = VsockSockets::Header;
using Packet = VsockSockets::Packet;
using testing::HasSubstr;

sockaddr_un at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

struct VsockTest : testing::Test {
  std::string folder = "/tmp/trapline-vsock-XXXXXX", path;
  std::unique_ptr<VsockSockets> sockets;
  std::mutex lock;
  std::condition_variable came;
  std::deque<Packet> packets;
  bool room = true;
  std::thread owner;

  VsockTest() {
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    path = folder + "/s";
    auto made = VsockSockets::create({.cid = 3, .path = path});
    EXPECT_TRUE(made) << wording::line(made.error());
    sockets = std::move(*made);
    sockets->attach([this](Packet& packet) {
      std::lock_guard guard{lock};
      if (!room) return VsockSockets::Sent::nothing;
      packets.push_back(packet);
      came.notify_one();
      return VsockSockets::Sent::all;
    });
    sockets->start();
    owner = std::thread{[this] { sockets->run(); }};
  }
  ~VsockTest() override {
    sockets->stop();
    owner.join();
    sockets.reset();
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    for (const char* name : {"/s", "/s_53"}) ::unlink((folder + name).c_str());
    ::rmdir(folder.c_str());
  }

  Fd connect() {
    Fd fd{::socket(AF_UNIX, SOCK_STREAM, 0)};
    const sockaddr_un address = at(path);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static void put(const Fd& fd, const std::string& text) {
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  static std::string get(const Fd& fd, std::size_t bytes) {
    std::string text(bytes, 0);
    std::size_t got = 0;
    for (ssize_t n; got < bytes && (n = ::read(fd.get(), &text[got], bytes - got)) > 0;)
      got += static_cast<std::size_t>(n);
    text.resize(got);
    return text;
  }
  // The next packet for the guest.
  Packet next() {
    std::unique_lock guard{lock};
    if (!came.wait_for(guard, std::chrono::seconds{10}, [this] { return !packets.empty(); })) {
      ADD_FAILURE() << "no packet";
      return {};
    }
    Packet packet = std::move(packets.front());
    packets.pop_front();
    return packet;
  }
  std::string next_data(std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) {
      const Packet p = next();
      if (p.header.op != Header::data) return text + "?";
      text.append(p.data.begin(), p.data.end());
    }
    return text;
  }
  // A packet of the guest's.
  void say(u32 guest_port, u32 host_port, u16 op, const std::string& text = {}, u32 flags = 0, u32 forwarded = 0,
           u32 buffer = 65536) {
    Packet p;
    p.header.from_cid = 3, p.header.to_cid = 2, p.header.from_port = guest_port, p.header.to_port = host_port;
    p.header.op = op, p.header.flags = flags, p.header.buffer = buffer, p.header.forwarded = forwarded;
    p.header.length = static_cast<u32>(text.size());
    p.data.assign(text.begin(), text.end());
    sockets->received(std::move(p));
  }
  // A connection from the host to port 52: the host's port.
  u32 accept_one(const Fd& fd, u32 buffer = 65536) {
    put(fd, "CONNECT 52\n");
    const Packet request = next();
    EXPECT_EQ(request.header.op, Header::request);
    EXPECT_EQ(request.header.to_port, 52u);
    EXPECT_EQ(request.header.to_cid, 3u);
    say(52, request.header.from_port, Header::response, {}, 0, 0, buffer);
    const std::string ok = "OK " + std::to_string(request.header.from_port) + "\n";
    EXPECT_EQ(get(fd, ok.size()), ok);
    return request.header.from_port;
  }
};

TEST_F(VsockTest, TheHostConnects) {
  const Fd fd = connect();
  const u32 port = accept_one(fd);
  put(fd, "hello");
  EXPECT_EQ(next_data(5), "hello");
  say(52, port, Header::data, "there");
  EXPECT_EQ(get(fd, 5), "there");
  say(52, port, Header::shutdown, {}, Header::kSendsNoMore | Header::kReceivesNoMore);
  EXPECT_EQ(get(fd, 1), "");
  EXPECT_EQ(next().header.op, Header::reset);
}

TEST_F(VsockTest, WhatFollowsTheGreetingIsForTheGuest) {
  const Fd fd = connect();
  put(fd, "CONNECT 52\nearly");
  const u32 port = next().header.from_port;
  say(52, port, Header::response);
  EXPECT_EQ(next_data(5), "early");
}

TEST_F(VsockTest, AGreetingThatMeansNothingIsTheEnd) {
  for (const char* text : {"CONNECT x\n", "HELLO 52\n", "CONNECT 4294967295\n", "CONNECT 52 52\n",
                           "CONNECT 0000000000000000000000000000000000000052\n"}) {
    const Fd fd = connect();
    put(fd, text);
    EXPECT_EQ(get(fd, 1), "") << text;
  }
}

TEST_F(VsockTest, AGuestThatRefuses) {
  const Fd fd = connect();
  put(fd, "CONNECT 52\n");
  say(52, next().header.from_port, Header::reset);
  EXPECT_EQ(get(fd, 1), "");
}

TEST_F(VsockTest, TheGuestConnects) {
  say(1000, 53, Header::request);
  Packet p = next();
  EXPECT_EQ(p.header.op, Header::reset);  // nobody listens
  EXPECT_EQ(p.header.to_port, 1000u);
  const Fd listener{::socket(AF_UNIX, SOCK_STREAM, 0)};
  const sockaddr_un address = at(path + "_53");
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::listen(listener.get(), 4);
  say(1000, 53, Header::request);
  EXPECT_EQ(next().header.op, Header::response);
  const Fd fd{::accept(listener.get(), nullptr, nullptr)};
  say(1000, 53, Header::data, "question");
  EXPECT_EQ(get(fd, 8), "question");
  put(fd, "answer");
  EXPECT_EQ(next_data(6), "answer");
  // One way closed: the other goes on.
  ::shutdown(fd.get(), SHUT_WR);
  p = next();
  EXPECT_EQ(p.header.op, Header::shutdown);
  EXPECT_EQ(p.header.flags, Header::kSendsNoMore);
  say(1000, 53, Header::data, "more");
  EXPECT_EQ(get(fd, 4), "more");
}

TEST_F(VsockTest, NoMoreIsSentThanTheGuestHasRoomFor) {
  const Fd fd = connect();
  const u32 port = accept_one(fd, 10);
  put(fd, "0123456789abcdef");
  EXPECT_EQ(next_data(10), "0123456789");
  EXPECT_EQ(next().header.op, Header::credit_request);
  say(52, port, Header::credit_update, {}, 0, 4, 10);
  EXPECT_EQ(next_data(4), "abcd");
}

TEST_F(VsockTest, AGuestThatSendsMoreThanThereIsRoomForIsReset) {
  const Fd fd = connect();
  const u32 port = accept_one(fd);
  const std::string much(65536, 'x');
  for (int i = 0; i < 40; i++) say(52, port, Header::data, much);  // nobody reads
  Packet p = next();
  while (p.header.op == Header::credit_update) p = next();
  EXPECT_EQ(p.header.op, Header::reset);
}

TEST_F(VsockTest, ASlowReaderGetsAllAndTheGuestItsCredit) {
  const Fd fd = connect();
  const u32 port = accept_one(fd);
  std::string all;
  u32 sent = 0, forwarded = 0;
  std::string back;
  std::thread reader{[&] { back = get(fd, 2'000'000); }};
  while (sent < 2'000'000) {
    while (sent - forwarded + 50'000 > VsockSockets::kRoom) {
      const Packet p = next();
      ASSERT_EQ(p.header.op, Header::credit_update);
      forwarded = p.header.forwarded + (p.header.forwarded > 0x80000000 ? 100 : 0);
    }
    const std::string piece(50'000, static_cast<char>('a' + sent / 50'000 % 26));
    say(52, port, Header::data, piece);
    all += piece;
    sent += 50'000;
  }
  reader.join();
  EXPECT_EQ(back, all);
}

TEST_F(VsockTest, ADriverThatStartsOverHasNoConnections) {
  const Fd fd = connect();
  accept_one(fd);
  sockets->started();
  EXPECT_EQ(get(fd, 1), "");
}

TEST_F(VsockTest, ForAGuestWithoutRoomNothingIsRead) {
  const Fd fd = connect();
  accept_one(fd);
  {
    std::lock_guard guard{lock};
    room = false;
  }
  put(fd, "waits");
  {
    std::lock_guard guard{lock};
    room = true;
  }
  sockets->may_send();
  EXPECT_EQ(next_data(5), "waits");
}

TEST_F(VsockTest, WhatIsForNobodyIsReset) {
  say(1, 2, Header::data, "x");
  EXPECT_EQ(next().header.op, Header::reset);
  Packet p;
  p.header.from_cid = 3, p.header.to_cid = 99, p.header.op = Header::request;
  sockets->received(std::move(p));
  EXPECT_EQ(next().header.from_cid, 99u);
}

TEST_F(VsockTest, AnotherVmsSocketIsNotTaken) {
  const auto second = VsockSockets::create({.cid = 4, .path = path});
  EXPECT_THAT(wording::line(second.error()), HasSubstr("name a socket that is not there yet"));
}

}  // namespace
}  // namespace trapline::monitor
