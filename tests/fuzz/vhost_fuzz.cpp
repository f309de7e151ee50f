// A hostile vhost-user back end: what it answers on its socket, and what it writes into the ring that it shares with the
// monitor. A request comes back once, with no more bytes than it has room for.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/guest_memory.h"
#include "monitor/vhost/shadow_ring.h"
#include "monitor/vhost/vhost_link.h"

namespace {

using namespace trapline;
using namespace trapline::monitor;
using vhost::Command;
using vhost::ShadowRing;

class Input {
 public:
  Input(const u8* data, std::size_t size) : at_{data}, end_{data + size} {}
  bool empty() const { return at_ == end_; }
  u8 byte() { return empty() ? 0 : *at_++; }
  u16 half() { return static_cast<u16>(byte() | byte() << 8); }
  std::span<const u8> rest(std::size_t most) {
    const std::span some{at_, std::min<std::size_t>(most, static_cast<std::size_t>(end_ - at_))};
    at_ += some.size();
    return some;
  }

 private:
  const u8* at_;
  const u8* end_;
};

// All that it will ever say is there, and its half is closed, so nobody waits.
void talk(Input& in) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  vhost::Link link{Fd{ends[0]}};
  const Fd back_end{ends[1]};
  link.acknowledge(in.byte() & 1);
  const auto questions = in.rest(in.byte() % 16), answers = in.rest(4096);
  if (!answers.empty() && ::send(ends[1], answers.data(), answers.size(), MSG_NOSIGNAL) < 0) std::abort();
  ::shutdown(ends[1], SHUT_WR);
  for (const u8 what : questions) {
    switch (what % 5) {
      case 0:
        link.ask(static_cast<Command>(what >> 4));
        break;
      case 1:
        link.stop_ring(what);
        break;
      case 2:
        if (const auto config = link.ask_config(what); config && config->size() != what) std::abort();
        break;
      case 3:
        link.tell(Command::set_owner);
        break;
      default:
        link.heard_unasked();
    }
    if (!link.open() && link.why().empty()) std::abort();
  }
}

struct Ram final : devices::virtio::Dma {
  GuestMemory ram = std::move(*GuestMemory::anonymous(1 * MiB));
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  void written(Gpa, u64) override {}
  void give_back(Gpa, u64) override {}
};

// The used ring is what the input says, at any time.
void ring(Input& in) {
  static Ram ram;
  std::vector<std::byte> memory(ShadowRing::kBytes);
  ShadowRing shadow{memory.data(), u64{1} << 40};
  shadow.restart(in.byte() & 1);
  std::vector<u8> out(65536, 0);  // by Request::id
  u16 next = 0, used = 0;
  while (!in.empty()) {
    const u8 what = in.byte();
    if (what % 4 == 0) {
      devices::virtio::Request request;
      request.id = next;
      bool good = true;
      for (unsigned i = 0, all = what / 4 % 8; i < all; i++)
        good &= request.add(ram, Gpa{u64{in.byte()} * 1024}, in.byte() + 1u, i >= all / 2);
      if (!good || ShadowRing::never_fits(request) || !shadow.push(request)) continue;
      out[next++] = 1;
      shadow.publish();
    } else if (what % 4 == 1) {
      const u32 id = in.byte() < 16 ? in.half() : in.byte(), element[2] = {id, in.half()};
      std::memcpy(&memory[ShadowRing::kUsed + 4 + 8 * u64{static_cast<u16>(used % ShadowRing::kSize)}], element,
                  sizeof element);
      used++;
    } else if (what % 4 == 2) {
      const u16 index = what & 128 ? in.half() : used;
      std::memcpy(&memory[ShadowRing::kUsed + 2], &index, sizeof index);
    } else {
      ShadowRing::Used got;
      for (;;) {
        const auto took = shadow.take(got);
        if (took == ShadowRing::Take::broken) {
          for (const auto& request : shadow.clear())
            if (!std::exchange(out[request.id], u8{0})) std::abort();
          if (shadow.in_flight() != 0 || std::find(out.begin(), out.end(), u8{1}) != out.end()) std::abort();
          return;
        }
        if (took == ShadowRing::Take::nothing) break;
        if (!std::exchange(out[got.request.id], u8{0}) || got.written > got.request.writable_bytes()) std::abort();
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size > 4096) return 0;
  Input in{data, size};
  if (in.byte() & 1)
    talk(in);
  else
    ring(in);
  return 0;
}
