// A hostile driver: registers of the PCI function, rings and buffers of the input's choice, for a disk, a network, a
// balloon, sockets and an entropy device. Nothing outside guest memory is touched, and a reset always ends.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/guest_memory.h"
#include "base/invariant.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "machine/virtio_pci.h"

using namespace trapline;
using namespace trapline::devices::virtio;

namespace {

constexpr u64 kRings = 0x10000, kRingBytes = 0x4000;  // where the input writes

struct Ram final : Dma {
  GuestMemory ram = std::move(*GuestMemory::anonymous(1 * MiB));
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  void written(Gpa at, u64 length) override {
    INVARIANT(length == 0 || ram.bytes(at, length), "{:#x} bytes at {:#x}", length, at.raw);
  }
  void give_back(Gpa at, u64 length) override {  // of the driver's choice: what is no RAM is passed over
    if (const auto bytes = ram.bytes(at, length)) std::memset(bytes->data(), 0, length);
  }
};

struct Inline final : Host {
  void interrupt(Device& device, unsigned queue) override {
    queue == kConfig ? device.transport().config_changed() : device.transport().interrupt(queue);
  }
  void rung(Device& device, unsigned queue) override { device.backend().serve(queue); }
};

struct Nowhere final : devices::MsiSink, devices::IrqLine, FrameSink {
  void msi(Gpa, u32) override {}
  void set(bool) override {}
  void send(std::span<const iovec> frame) override {
    for (const iovec& v : frame) sum += v.iov_len != 0 ? static_cast<const u8*>(v.iov_base)[v.iov_len - 1] : 0;
  }
  u64 sum = 0;
};

struct MemoryDisk final : Disk {
  Facts known{.bytes = 16 * 512, .read_only = false, .discards = true, .serial = "fuzz"};
  std::vector<u8> bytes = std::vector<u8>(16 * 512);
  std::vector<std::unique_ptr<DiskJob>> held;
  const Facts& facts() const override { return known; }
  void attach(Listener&) override {}
  void submit(std::unique_ptr<DiskJob> job) override { held.push_back(std::move(job)); }
  void go() override {}
  void settle() override {
    for (auto& job : std::exchange(held, {})) {
      INVARIANT(job->offset <= bytes.size() && job->bytes <= bytes.size() - job->offset, "outside the disk");
      u64 at = job->offset;
      for (const iovec& v : job->data) {
        INVARIANT(v.iov_len <= job->offset + job->bytes - at, "more data than bytes");
        job->kind == DiskJob::Kind::read ? std::memcpy(v.iov_base, &bytes[at], v.iov_len)
                                         : std::memcpy(&bytes[at], v.iov_base, v.iov_len);
        at += v.iov_len;
      }
      job->done(static_cast<int>(at % 3));
    }
  }
};

// Sends back what it gets.
struct Mirror final : VsockPeer {
  Vsock* device = nullptr;
  void received(VsockPacket&& packet) override {
    INVARIANT(packet.data.size() <= Vsock::kMostData && packet.data.size() == packet.header.length, "{} bytes",
              packet.data.size());
    while (device->send(packet) == Vsock::Sent::part) {
    }
  }
  void may_send() override {}
  void started() override {}
};

class Script {
 public:
  Script(const u8* data, std::size_t size) : data_{data}, end_{data + size} {}
  bool more() const { return data_ < end_; }
  u64 take(unsigned bytes) {
    u64 value = 0;
    for (unsigned i = 0; i < bytes && data_ < end_; i++) value |= u64{*data_++} << 8 * i;
    return value;
  }

 private:
  const u8 *data_, *end_;
};

void bring_up(machine::VirtioPci& pci, Device& device, u64 features) {
  const auto put = [&](u64 offset, unsigned size, u64 value) {
    const auto hit = pci.find_memory(Gpa{0xc0000000 + offset}, size);
    if (hit) hit->target->write(hit->offset, size, value);
  };
  put(0x14, 1, 0);
  put(0x14, 1, 3);
  for (const u32 half : {0u, 1u}) put(0x08, 4, half), put(0x0c, 4, features >> 32 * half & 0xffffffff);
  put(0x14, 1, 11);
  for (u16 q = 0; q < device.queues(); q++) {
    put(0x16, 2, q);
    put(0x18, 2, 8);
    put(0x20, 8, kRings + q * 0x1000u);
    put(0x28, 8, kRings + q * 0x1000u + 0x400);
    put(0x30, 8, kRings + q * 0x1000u + 0x800);
    put(0x1c, 2, 1);
  }
  put(0x14, 1, 15);
}

void drive(Script& script, Ram& ram, machine::VirtioPci& pci, Device& device, MemoryDisk* disk, Net* net) {
  while (script.more()) {
    const u8 what = static_cast<u8>(script.take(1));
    const u64 place = script.take(2);
    switch (what & 7) {
      case 0:
        bring_up(pci, device, script.take(1) & 1 ? feature::of_rings : feature::of_rings & ~feature::ring_packed);
        break;
      case 1: {
        const u64 value = script.take(8);
        if (const auto hit = pci.find_memory(Gpa{0xc0000000 + place % 0x5000}, 1u << (what >> 3 & 3)))
          hit->target->write(hit->offset, 1u << (what >> 3 & 3), value);
        break;
      }
      case 2:
        if (const auto hit = pci.find_memory(Gpa{0xc0000000 + place % 0x5000}, 1u << (what >> 3 & 3)))
          hit->target->read(hit->offset, 1u << (what >> 3 & 3));
        break;
      case 3:
        if (disk) disk->settle();
        if (net) net->deliver({ram.ram.host(Gpa{kRings}), place % 3000});
        break;
      case 4:
        device.notify(static_cast<unsigned>(place % 4));
        break;
      default: {  // into the rings
        const u64 value = script.take(1 + (what >> 3 & 7));
        std::memcpy(ram.ram.host(Gpa{kRings + place % kRingBytes}), &value, sizeof value);
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Script script{data, size};
  Ram ram;
  Inline host;
  Nowhere nowhere;
  MemoryDisk* disk = nullptr;
  Net* net = nullptr;
  std::unique_ptr<Backend> backend;
  Mirror mirror;
  switch (script.take(1) % 5) {
    case 0: {
      auto made = std::make_unique<MemoryDisk>();
      disk = made.get();
      backend = std::make_unique<Blk>(std::move(made), 2);
      break;
    }
    case 1: {
      auto made = std::make_unique<Net>(Net::Settings{}, nowhere, [] {});
      net = made.get();
      backend = std::move(made);
      break;
    }
    case 2:
      backend = std::make_unique<Balloon>(ram);
      break;
    case 3: {
      auto made = std::make_unique<Vsock>(script.take(1), mirror);
      mirror.device = made.get();
      backend = std::move(made);
      break;
    }
    default:
      backend = std::make_unique<Rng>([](std::span<std::byte> out) { return out.size(); });
  }
  Device device{std::move(backend), ram, host};
  machine::VirtioPci pci{device, nowhere, nowhere};
  Gpa next{0xc0000000};
  pci.place_memory(next, Gpa{0xc0010000});
  drive(script, ram, pci, device, disk, net);
  device.write_status(0);
  if (disk) disk->settle();
  INVARIANT(device.status() == 0, "the reset has not ended");
  return 0;
}
