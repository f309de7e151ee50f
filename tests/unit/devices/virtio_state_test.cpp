// Every virtio device, saved and restored at random points of what a driver does, right or wrong.
#include "support/state_suite.h"

#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/ninep.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using namespace trapline::test;

constexpr u64 kBuffers = 0x50000, kMemory = 0x60000;

// What is behind the devices: the same for the original and the restored one.
struct Behind final : FrameSink, PortEnd, MessageServer, VsockPeer {
  u64 sum = 0;
  std::vector<u8> room_ = std::vector<u8>(256);
  void send(std::span<const iovec> frame) override {
    for (const iovec& v : frame) sum = sum * 31 + v.iov_len;
  }
  void received(std::span<const std::byte> bytes) override { sum = sum * 31 + bytes.size(); }
  void may_send() override { sum++; }
  std::size_t length_ = 0;
  unsigned slots() const override { return 1; }
  std::span<u8> room(unsigned) override { return room_; }
  void post(unsigned, std::size_t length, u16) override { length_ = length; }
  bool busy(unsigned) const override { return false; }
  bool answered(unsigned) const override { return true; }
  bool await(unsigned, bool) override { return true; }
  std::span<const u8> reply(unsigned) override { return {room_.data(), length_}; }
  u32 answers() const override { return 0; }
  void await_more(u32) override {}
  bool let_go() const override { return false; }
  void settle() override {}
  void received(VsockPacket&& packet) override { sum = sum * 31 + packet.data.size(); }
  void started() override {}
};

struct MemoryDisk final : Disk {
  Facts known{.bytes = 16 * 512, .read_only = false, .discards = true, .serial = "state"};
  u64 sum = 0;
  const Facts& facts() const override { return known; }
  void attach(Listener&) override {}
  void submit(std::unique_ptr<DiskJob> job) override {
    sum = sum * 31 + job->bytes + job->through;
    for (const iovec& v : job->data)
      if (job->kind == DiskJob::Kind::read) std::memset(v.iov_base, static_cast<int>(job->offset >> 9), v.iov_len);
    job->done(0);
  }
  void go() override {}
  void settle() override {}
};

struct Parts {
  FakeDma dma;
  Behind behind;
  MemoryDisk* disk = nullptr;
  Net* net = nullptr;
  Console* console = nullptr;
};

std::unique_ptr<Backend> make(Parts& p, u16 type) {
  switch (type) {
    case 1: {
      auto net = std::make_unique<Net>(Net::Settings{}, p.behind, [] {});
      p.net = net.get();
      return net;
    }
    case 2: {
      auto disk = std::make_unique<MemoryDisk>();
      p.disk = disk.get();
      return std::make_unique<Blk>(std::move(disk), 2);
    }
    case 3: {
      auto console = std::make_unique<Console>(std::vector<Console::Port>{{"a", p.behind}, {"b", p.behind}});
      p.console = console.get();
      return console;
    }
    case 5:
      return std::make_unique<Balloon>(p.dma);
    case 9:
      return std::make_unique<NineP>("home", p.behind);
    case 19:
      return std::make_unique<Vsock>(7, p.behind);
    default:
      return std::make_unique<Rng>([](std::span<std::byte> out) {
        std::fill(out.begin(), out.end(), std::byte{0x5a});
        return out.size();
      });
  }
}

template <u16 type>
struct Rig {
  Parts parts;
  FakeHost host;
  FakeTransport transport;
  Device device{make(parts, type), parts.dma, host};
  Rig() { device.attach(transport); }

  Device& subject() { return device; }
  void environment(const Rig& other) {
    std::memcpy(parts.dma.ram.host(Gpa{0}), other.parts.dma.ram.host(Gpa{0}), kMemory);
    parts.behind.sum = other.parts.behind.sum;
    parts.behind.room_ = other.parts.behind.room_;
    if (parts.disk) parts.disk->sum = other.parts.disk->sum;
    host.interrupts = other.host.interrupts, host.config_interrupts = other.host.config_interrupts;
    transport.config_interrupts = other.transport.config_interrupts;
  }

  void start(Random& random) {
    const u64 own = random() & 0xffffff & device.kind().features;
    const u64 rings = random() % 2 ? feature::event_index : 0;
    bring_up(device, own | rings | feature::version_1,
             {Gpa{DriverRing::kTable}, Gpa{DriverRing::kDriver}, Gpa{DriverRing::kDevice}, 16},
             static_cast<unsigned>(random() % device.queues()));
  }
  // A chain of one or two buffers with some content.
  void offer(Random& random) {
    const u16 head = static_cast<u16>(random() % 16), second = static_cast<u16>(random() % 16);
    const bool two = head != second && random() % 2;
    const u32 length = static_cast<u32>(random() % 64 + 1);
    parts.dma.put(kBuffers, random() % 20);
    parts.dma.put(kBuffers + 8, random() % 20);
    parts.dma.put(
        DriverRing::kTable + 16 * head,
        Descriptor{Gpa{kBuffers}, length, static_cast<u16>((two ? 1 : 0) | (!two && random() % 2 ? 2 : 0)), second});
    parts.dma.put(DriverRing::kTable + 16 * second + (two ? 0 : 0x1000), Descriptor{Gpa{kBuffers + 0x100}, 1024, 2, 0});
    const u16 index = parts.dma.template get<u16>(DriverRing::kDriver + 2);
    parts.dma.put(DriverRing::kDriver + 4 + 2 * u64{static_cast<u16>(index % 16)}, head);
    parts.dma.put(DriverRing::kDriver + 2, static_cast<u16>(index + 1));
  }
  std::pair<u64, u64> act(Random& random) {
    const unsigned queue = static_cast<unsigned>(random() % device.queues());
    const u8 byte = static_cast<u8>(random());
    switch (random() % 12) {
      case 0:
        std::memset(parts.dma.ram.host(Gpa{DriverRing::kTable}), 0, 0x30000);
        start(random);
        break;
      case 1:
        device.write_config(byte % 16, std::span{&byte, 1});
        break;
      case 2:
        device.queue_select() = byte, device.device_select() = byte % 3, device.driver_select() = byte % 3;
        break;
      case 3:
        if (parts.console) {
          // As it is outside of these tests: a port that is open is sent to.
          const u8 text[] = {byte, byte};
          parts.console->send(byte % 2, text);
        }
        break;
      default:
        offer(random);
        for (unsigned q = 0; q < device.queues(); q++) device.notify(q);
        device.notify(queue);
    }
    u64 config = 0;
    device.read_config(0, {reinterpret_cast<u8*>(&config), 8});
    return {parts.behind.sum * 31 + config + host.interrupts + (parts.disk ? parts.disk->sum : 0),
            u64{device.status()} << 32 | device.driver_features()};
  }
};

class VirtioState : public StateIsWhole {};

TEST_P(VirtioState, SavedAndRestored) {
  for (u64 seed = 1; seed <= 20; seed++) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    GetParam().check(seed);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Virtio, VirtioState,
    testing::Values(StateCase{"net", state_is_whole<Rig<1>>}, StateCase{"blk", state_is_whole<Rig<2>>},
                    StateCase{"console", state_is_whole<Rig<3>>}, StateCase{"rng", state_is_whole<Rig<4>>},
                    StateCase{"balloon", state_is_whole<Rig<5>>}, StateCase{"ninep", state_is_whole<Rig<9>>},
                    StateCase{"vsock", state_is_whole<Rig<19>>}),
    test::name_of);

}  // namespace
}  // namespace trapline::devices::virtio
