// A driver for tests: lays out rings of both formats in guest RAM as VIRTIO 1.2, 2.7 and 2.8 say, or as they do not.
#pragma once

#include <functional>
#include <vector>

#include "base/guest_memory.h"
#include "devices/virtio/device.h"

namespace trapline::test {

namespace virtio = devices::virtio;

// Guest RAM, and what devices say that they wrote.
struct FakeDma final : virtio::Dma {
  GuestMemory ram = std::move(*GuestMemory::anonymous(4 * MiB));
  std::vector<std::pair<u64, u64>> writes;
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  std::function<void()> look = [] {};  // while the device is at it
  void written(Gpa at, u64 length) override { writes.emplace_back(at.raw, length), look(); }
  std::vector<std::pair<u64, u64>> given_back;
  void give_back(Gpa at, u64 length) override { given_back.emplace_back(at.raw, length); }

  template <class T>
  T get(u64 at) const {
    T value;
    std::memcpy(&value, ram.host(Gpa{at}), sizeof value);
    return value;
  }
  template <class T>
  void put(u64 at, const T& value) {
    std::memcpy(ram.host(Gpa{at}), &value, sizeof value);
  }
};

struct Buffer {
  u64 at;
  u32 length;
  bool device_writes = false;
};

struct Done {
  u32 id, length;
  bool operator==(const Done&) const = default;
};

// The driver's side of a ring at fixed places.
struct DriverRing {
  static constexpr u64 kTable = 0x10000, kDriver = 0x20000, kDevice = 0x30000, kIndirect = 0x40000;
  FakeDma& dma;
  u16 size;
  explicit DriverRing(FakeDma& d, u16 s) : dma{d}, size{s} {}
  virtual ~DriverRing() = default;
  virtio::RingPlace place() const { return {Gpa{kTable}, Gpa{kDriver}, Gpa{kDevice}, size}; }
  // Makes a chain available; its id. `indirect`: by a table of its own.
  virtual u16 add(const std::vector<Buffer>& chain, bool indirect = false) = 0;
  virtual std::optional<Done> used() = 0;
  virtual void want_interrupts(bool wanted) = 0;
  virtual bool notifications_wanted() = 0;
};

struct SplitDriver final : DriverRing {
  using DriverRing::DriverRing;
  u16 free = 0, index = 0, seen = 0;

  void descriptor(u64 table, u16 i, const Buffer& b, u16 flags, u16 next) {
    dma.put(table + 16 * u64{i},
            virtio::Descriptor{Gpa{b.at}, b.length, static_cast<u16>(flags | (b.device_writes ? 2 : 0)), next});
  }
  void publish(u16 head) {
    dma.put(kDriver + 4 + 2 * u64{static_cast<u16>(index % size)}, head);
    dma.put(kDriver + 2, ++index);
  }
  u16 add(const std::vector<Buffer>& chain, bool indirect = false) override {
    const u16 head = free;
    if (indirect) {
      const u64 table = kIndirect + 0x1000 * u64{head};
      for (u16 i = 0; i < chain.size(); i++)
        descriptor(table, i, chain[i], i + 1u < chain.size() ? 1 : 0, static_cast<u16>(i + 1));
      descriptor(kTable, head, {table, static_cast<u32>(16 * chain.size())}, 4, 0);
      free = static_cast<u16>((free + 1) % size);
    } else {
      for (std::size_t i = 0; i < chain.size(); i++) {
        const u16 next = static_cast<u16>((free + 1) % size);
        descriptor(kTable, free, chain[i], i + 1 < chain.size() ? 1 : 0, next);
        free = next;
      }
    }
    publish(head);
    return head;
  }
  std::optional<Done> used() override {
    if (dma.get<u16>(kDevice + 2) == seen) return std::nullopt;
    const auto e = dma.get<virtio::UsedElement>(kDevice + 4 + 8 * u64{static_cast<u16>(seen % size)});
    seen++;
    return Done{e.id, e.length};
  }
  void want_interrupts(bool wanted) override { dma.put<u16>(kDriver, wanted ? 0 : 1); }
  bool notifications_wanted() override { return dma.get<u16>(kDevice) == 0; }
  void used_event(u16 at) { dma.put(kDriver + 4 + 2 * u64{size}, at); }
  u16 available_event() { return dma.get<u16>(kDevice + 4 + 8 * u64{size}); }
};

struct PackedDriver final : DriverRing {
  using DriverRing::DriverRing;
  u16 next = 0, seen = 0, next_id = 0;
  bool wrap = true, seen_wrap = true;
  std::vector<u16> counts = std::vector<u16>(65536, 0);

  static u16 flags(bool wrap_now, u16 more) { return static_cast<u16>((wrap_now ? 1 << 7 : 1 << 15) | more); }
  u16 add(const std::vector<Buffer>& chain, bool indirect = false) override {
    const u16 id = next_id++;
    std::vector<Buffer> direct = chain;
    if (indirect) {
      const u64 table = kIndirect + 0x1000 * (id & 63u);
      for (std::size_t i = 0; i < chain.size(); i++)
        dma.put(table + 16 * i, virtio::PackedDescriptor{Gpa{chain[i].at}, chain[i].length, 0,
                                                         static_cast<u16>(chain[i].device_writes ? 2 : 0)});
      direct = {{table, static_cast<u32>(16 * chain.size())}};
    }
    counts[id] = static_cast<u16>(direct.size());
    for (std::size_t i = 0; i < direct.size(); i++) {
      const u16 more =
          static_cast<u16>((i + 1 < direct.size() ? 1 : 0) | (direct[i].device_writes ? 2 : 0) | (indirect ? 4 : 0));
      dma.put(kTable + 16 * u64{next},
              virtio::PackedDescriptor{Gpa{direct[i].at}, direct[i].length, id, flags(wrap, more)});
      if (++next == size) next = 0, wrap = !wrap;
    }
    return id;
  }
  std::optional<Done> used() override {
    const auto d = dma.get<virtio::PackedDescriptor>(kTable + 16 * u64{seen});
    if (((d.flags >> 7 & 1) != 0) != seen_wrap || ((d.flags >> 15 & 1) != 0) != seen_wrap) return std::nullopt;
    seen = static_cast<u16>(seen + counts[d.id]);
    if (seen >= size) seen = static_cast<u16>(seen - size), seen_wrap = !seen_wrap;
    return Done{d.id, d.length};
  }
  void want_interrupts(bool wanted) override { dma.put<u16>(kDriver + 2, wanted ? 0 : 1); }
  bool notifications_wanted() override { return dma.get<u16>(kDevice + 2) != 1; }
};

// The host of a device without threads: serves at once, and counts.
struct FakeHost final : virtio::Host {
  unsigned interrupts = 0, config_interrupts = 0;
  bool serves = true;  // else doorbells are only noted
  std::vector<unsigned> bells;
  void interrupt(virtio::Device&, unsigned queue) override { (queue == kConfig ? config_interrupts : interrupts)++; }
  void rung(virtio::Device& device, unsigned queue) override {
    bells.push_back(queue);
    if (serves) device.backend().serve(queue);
  }
};

struct FakeTransport final : virtio::Transport {
  unsigned queue_interrupts = 0, config_interrupts = 0;
  void interrupt(unsigned) override { queue_interrupts++; }
  void config_changed() override { config_interrupts++; }
};

// What a driver does from reset to DRIVER_OK, one queue at the places of DriverRing.
inline void bring_up(virtio::Device& device, u64 features, const virtio::RingPlace& place, unsigned queue = 0) {
  using namespace virtio::status;
  device.write_status(0);
  device.write_status(acknowledge | driver);
  for (const u32 half : {0u, 1u}) {
    device.driver_select() = half;
    device.write_driver_features(static_cast<u32>(features >> 32 * half));
  }
  device.write_status(acknowledge | driver | features_ok);
  device.queue_select() = static_cast<u16>(queue);
  device.write_size(place.size);
  for (const unsigned shift : {0u, 32u}) {
    device.write_place(&virtio::RingPlace::descriptors, shift, static_cast<u32>(place.descriptors.raw >> shift));
    device.write_place(&virtio::RingPlace::driver, shift, static_cast<u32>(place.driver.raw >> shift));
    device.write_place(&virtio::RingPlace::device, shift, static_cast<u32>(place.device.raw >> shift));
  }
  device.enable();
  device.write_status(acknowledge | driver | features_ok | driver_ok);
}

}  // namespace trapline::test
