// The network of --net user: words that name forwarded ports, the framing of the stream, and what a guest's DHCP, DNS
// and router requests make of libslirp as it is set up here (restricted: nothing leaves this process).
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "slirp/forward.h"
#include "slirp/frames.h"
#include "slirp/network.h"

namespace {

using namespace trapline;

// Ethernet, IPv4 and UDP headers for a guest's datagram: DHCP, DNS, TFTP.
void put_datagram(std::vector<u8>& frame, u16 port, std::span<const u8> data) {
  const auto half = [&](u16 v) { frame.push_back(static_cast<u8>(v >> 8)), frame.push_back(static_cast<u8>(v)); };
  const std::array<u8, 12> macs{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3};
  frame.assign(macs.begin(), macs.end());
  half(0x0800);
  const std::size_t ip = frame.size();
  half(0x4500), half(static_cast<u16>(28 + data.size())), half(1), half(0), half(0x4011), half(0);
  half(0), half(port == 67 ? 0 : 0x0a00), half(port == 67 ? 0xffff : 0x0a00), half(port == 67 ? 0xffff : 0x0203);
  std::swap(frame[ip + 12], frame[ip + 14]);
  u32 sum = 0;
  for (std::size_t i = ip; i < ip + 20; i += 2) sum += static_cast<u32>(frame[i] << 8 | frame[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~((sum & 0xffff) + (sum >> 16));
  frame[ip + 10] = static_cast<u8>(sum >> 8), frame[ip + 11] = static_cast<u8>(sum);
  half(68), half(port), half(static_cast<u16>(8 + data.size())), half(0);
  frame.insert(frame.end(), data.begin(), data.end());
}

void forward(const std::string& word) {
  const auto f = slirp::parse_forward(word);
  if (!f) return;
  char host[INET_ADDRSTRLEN], guest[INET_ADDRSTRLEN];
  ::inet_ntop(AF_INET, &f->host, host, sizeof host);
  ::inet_ntop(AF_INET, &f->guest, guest, sizeof guest);
  const std::string again = std::string{f->udp ? "udp:" : "tcp:"} + host + ":" + std::to_string(f->host_port) + ":" +
                            guest + ":" + std::to_string(f->guest_port);
  const auto same = slirp::parse_forward(again);
  if (!same || same->host.s_addr != f->host.s_addr || same->guest_port != f->guest_port) std::abort();
}

void framing(std::span<const u8> stream) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  slirp::Frames frames{ends[0]};
  std::size_t bytes = 0;
  for (bool open = true; open && !stream.empty();) {
    const std::size_t n = std::min<std::size_t>(stream.size(), 1 + stream[0]);
    if (::send(ends[1], stream.data(), n, MSG_NOSIGNAL) < 0) std::abort();
    stream = stream.subspan(n);
    open = frames.receive([&](std::span<const u8> frame) {
      for (const u8 b : frame) bytes += b;
      frames.send(frame);
    });
  }
  frames.flush();
  ::close(ends[0]), ::close(ends[1]);
}

void guest(std::span<const u8> data) {
  static const auto library = slirp::Library::load();
  if (!library) std::abort();  // install libslirp0
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  {
    slirp::Network network{*library, ends[0], true, 1500};
    constexpr u16 kPorts[] = {67, 53, 69};
    std::vector<u8> frame;
    while (data.size() > 2) {
      const u8 kind = data[0];
      const auto some = data.subspan(2, std::min<std::size_t>(data.size() - 2, data[1] * 2u));
      data = data.subspan(2 + some.size());
      if (kind % 4 == 3)
        frame.assign(some.begin(), some.end());
      else
        put_datagram(frame, kPorts[kind % 4], some);
      network.input(frame);
      std::array<u8, 4096> taken;
      network.flush();
      while (::recv(ends[1], taken.data(), taken.size(), MSG_DONTWAIT) > 0) {
      }
    }
  }
  ::close(ends[0]), ::close(ends[1]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 1 || size > 4096) return 0;
  const std::span<const u8> rest{data + 1, size - 1};
  switch (data[0] % 4) {
    case 0:
      forward({reinterpret_cast<const char*>(rest.data()), rest.size()});
      break;
    case 1:
      framing(rest);
      break;
    default:
      guest(rest);
  }
  return 0;
}
