// The core's own answers against the chipset's: the same accesses, once by way of the LocalBus and once directly, find
// the same values and leave the same state.
#include "core/local_bus.h"

#include <gtest/gtest.h>

#include <random>

#include "cpu/vcpu.h"
#include "machine/chipset.h"

namespace trapline::core {
namespace {

struct Board : devices::TimeSource, machine::InterruptSink, machine::PowerSink, machine::SerialBackend {
  u64 now_ns() const override { return now; }
  u64 wall_clock_seconds() const override { return 1'700'000'000; }
  void msi(Gpa, u32) override {}
  void extint(bool) override {}
  void nmi() override {}
  void power_off() override {}
  void reset() override {}
  void debug_exit(u32) override {}
  void write(u8 byte) override { text.push_back(static_cast<char>(byte)); }
  u64 now = 5'000'000;
  std::string text;
  machine::Config config;
  machine::Chipset chipset{machine::ChipsetParts{config, *this, *this, *this, *this}};
};

// The monitor without its process: takes what was posted, serves, publishes.
struct Monitor final : cpu::Bus {
  Monitor(Board& b, devices::DevicePage& p, channel::SerialRing& r) : board{b}, page{p}, ring{r} { publish(); }
  void publish() { board.chipset.publish(page, true); }
  void begin() {
    requests++;
    taker.take(ring, [this](u8 byte) { board.chipset.port_write(0x3f8, 1, byte); });
  }
  u32 port_read(cpu::Vcpu&, u16 port, unsigned size) override {
    begin();
    const u32 value = board.chipset.port_read(port, size);
    return publish(), value;
  }
  void port_write(cpu::Vcpu&, u16 port, unsigned size, u32 value) override {
    begin();
    board.chipset.port_write(port, size, value);
    publish();
  }
  u64 mmio_read(cpu::Vcpu&, Gpa gpa, unsigned size) override {
    begin();
    const u64 value = board.chipset.mmio_read(Gpa{gpa}, size);
    return publish(), value;
  }
  void mmio_write(cpu::Vcpu&, Gpa gpa, unsigned size, u64 value) override {
    begin();
    board.chipset.mmio_write(Gpa{gpa}, size, value);
    publish();
  }
  u8 pic_acknowledge(cpu::Vcpu&) override { return begin(), board.chipset.pic_acknowledge(); }
  void ioapic_eoi(cpu::Vcpu&, u8 vector) override {
    begin();
    board.chipset.ioapic_eoi(vector);
    publish();
  }
  Board& board;
  devices::DevicePage& page;
  channel::SerialRing& ring;
  channel::SerialTaker taker;
  unsigned requests = 0;
};

class LocalBusTest : public testing::Test {
 protected:
  LocalBusTest() {
    clock.instructions = true;
    cpu.clock = &clock;
    at(5'000'000);
  }
  void at(u64 ns) {
    clock.virtual_base = ns;  // 1 GHz
    board.now = ns;
  }
  u32 in(u16 port, unsigned size = 1) { return bus.port_read(cpu, port, size); }
  void out(u16 port, u32 value, unsigned size = 1) { bus.port_write(cpu, port, size, value); }
  // Runs `work` and says how many requests it took.
  template <class Work>
  unsigned requests(Work work) {
    const unsigned before = monitor.requests;
    work();
    return monitor.requests - before;
  }

  Board board;
  std::unique_ptr<devices::DevicePage> page = std::make_unique<devices::DevicePage>();
  std::unique_ptr<channel::SerialRing> ring = std::make_unique<channel::SerialRing>();
  Monitor monitor{board, *page, *ring};
  LocalDevices local{*page, *ring, true};
  LocalBus bus{local, monitor};
  cpu::Clock clock;
  cpu::Vcpu cpu;
};

TEST_F(LocalBusTest, ReadsThatDependOnTimeAloneNeedNoRequest) {
  out(0x43, 0x34), out(0x40, 0x9c), out(0x40, 0x2e);
  EXPECT_EQ(requests([&] {
              at(500'000'000'000);
              EXPECT_NEAR(in(0x608, 4), 3579545.0 * 500, 2);
              EXPECT_EQ(in(0x608, 2), in(0x608, 4) & 0xffff);
              EXPECT_EQ(in(0x60a), in(0x608, 4) >> 16 & 0xff);
              out(0x43, 0);
              in(0x40), in(0x40), in(0x61);
              out(0x70, 0), in(0x71);
              out(0x80, 0x55);
              EXPECT_EQ(in(0x80), 0x55u);
              bus.mmio_write(cpu, Gpa{0xfec00000}, 4, 1);
              EXPECT_EQ(bus.mmio_read(cpu, Gpa{0xfec00010}, 4), 0x170020u);
              EXPECT_EQ(in(0x3fd), 0x60u);
            }),
            0u);
}

TEST_F(LocalBusTest, LatchesHoldUntilRead) {
  out(0x43, 0x34), out(0x40, 0), out(0x40, 0);
  at(6'000'000);
  out(0x43, 0xc2);  // read-back: count and status of counter 0
  at(7'000'000);
  out(0x43, 0);  // the first latch holds
  EXPECT_EQ(in(0x40) & 0x3f, 0x34u);
  const u32 low = in(0x40), held = low | in(0x40) << 8;
  EXPECT_NEAR(held, 65536 - 1193, 4);
  const u32 next = in(0x40), now = next | in(0x40) << 8;
  EXPECT_NEAR(now, 65536 - 2386, 4);
}

TEST_F(LocalBusTest, AControlWordForgetsLatches) {
  out(0x43, 0x34), out(0x40, 0), out(0x40, 0);
  out(0x43, 0);
  in(0x40);  // the low half only
  out(0x43, 0x34), out(0x40, 0x00), out(0x40, 0x10);
  at(5'100'000);
  const u32 low = in(0x40), count = low | in(0x40) << 8;
  EXPECT_NEAR(count, 0x1000 - 119, 3);
}

TEST_F(LocalBusTest, IndexAndSelectGoAlong) {
  out(0x70, 0x33), out(0x71, 0xa7);
  EXPECT_EQ(in(0x71), 0xa7u);
  out(0x70, 0x5534, 2);
  EXPECT_EQ(in(0x71), 0x55u);
  EXPECT_EQ(board.chipset.port_read(0x71, 1), 0x55u);
  EXPECT_EQ(requests([&] { out(0x70, 0x0c), in(0x71); }), 2u) << "register C is cleared by reading it";
  bus.mmio_write(cpu, Gpa{0xfec00000}, 4, 0x14);
  bus.mmio_write(cpu, Gpa{0xfec00010}, 4, 0x30);
  EXPECT_EQ(bus.mmio_read(cpu, Gpa{0xfec00010}, 4), 0x30u);
  board.chipset.mmio_write(Gpa{0xfec00000}, 4, 0x14);
  EXPECT_EQ(board.chipset.mmio_read(Gpa{0xfec00010}, 4), 0x30u);
}

TEST_F(LocalBusTest, SerialBytesArePostedInOrderWithRequests) {
  EXPECT_EQ(requests([&] {
              for (char c : std::string{"posted"}) out(0x3f8, static_cast<u8>(c));
            }),
            0u);
  EXPECT_EQ(board.text, "");
  out(0x3f9, 0);  // any request
  EXPECT_EQ(board.text, "posted");
  EXPECT_EQ(requests([&] {
              for (u32 i = 0; i <= channel::SerialRing::kBytes; i++) out(0x3f8, 'x');
            }),
            1u)
      << "a full ring";
  EXPECT_EQ(board.text.size(), 6 + channel::SerialRing::kBytes + 1);
}

TEST_F(LocalBusTest, WhatSeesMoreThanAByteIsARequest) {
  const auto asks = [&] { return requests([&] { out(0x3f8, 'x'); }) == 1; };
  EXPECT_FALSE(asks());
  out(0x3fb, 0x83);  // DLAB
  EXPECT_TRUE(asks());
  out(0x3fb, 3);
  out(0x3fc, 0x10);  // loopback
  EXPECT_TRUE(asks());
  EXPECT_EQ(in(0x3f8), static_cast<u32>('x'));
  out(0x3fc, 0);
  EXPECT_FALSE(asks());
}

// As a driver fills the FIFO: one request says why it was interrupted, and none is made for each byte.
TEST_F(LocalBusTest, BytesThatInterruptArePostedAndIirTellsOfThem) {
  out(0x3f9, 2);  // the transmitter's interrupt
  EXPECT_EQ(requests([&] { EXPECT_EQ(in(0x3fa) & 0x0f, 2u); }), 1u) << "reading IIR takes the event";
  EXPECT_EQ(requests([&] { EXPECT_EQ(in(0x3fa) & 0x0f, 1u); }), 0u);
  EXPECT_EQ(requests([&] {
              for (int i = 0; i < 16; i++) out(0x3f8, 'x');
            }),
            0u);
  EXPECT_EQ(board.text, "");
  EXPECT_EQ(requests([&] { EXPECT_EQ(in(0x3fa) & 0x0f, 2u); }), 1u) << "the bytes are sent first";
  EXPECT_EQ(board.text.size(), 16u);
  board.chipset.publish(*page, false);  // --clock instructions: the event comes with the byte
  EXPECT_EQ(requests([&] { out(0x3f8, 'x'); }), 1u);
}

TEST_F(LocalBusTest, InputShowsInTheLineStatus) {
  EXPECT_EQ(in(0x3fd), 0x60u);
  board.chipset.console_input(reinterpret_cast<const u8*>("ab"), 2);
  monitor.publish();
  EXPECT_EQ(in(0x3fd), 0x61u);
  EXPECT_EQ(in(0x3f8), static_cast<u32>('a'));
}

TEST_F(LocalBusTest, PortsWithoutADeviceNeedNoRequest) {
  EXPECT_EQ(requests([&] {
              for (const unsigned size : {1u, 2u, 4u}) {
                EXPECT_EQ(in(0x279, size), size == 4 ? 0xffffffffu : (1u << 8 * size) - 1);
                out(0xa79, 0x12345678, size);
              }
            }),
            0u);
  EXPECT_EQ(requests([&] { in(0x5f, 2); }), 1u) << "its upper half is the i8042";
  EXPECT_EQ(requests([&] { in(0x1000); }), 1u) << "PCI's";
}

// Whatever is asked: what the LocalBus answers is what the chipset of a machine without one answers.
TEST_F(LocalBusTest, NobodyCanTell) {
  Board other;
  other.now = board.now;
  std::mt19937_64 random{11};
  const u16 ports[] = {0x40,  0x41,  0x42,  0x43,  0x61,  0x70,  0x71,  0x80,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
                       0x3fd, 0x3fe, 0x3ff, 0x606, 0x608, 0x60a, 0x3f6, 0x279, 0xa79, 0x5f,  0xcf7, 0xfff, 0x1000};
  for (int i = 0; i < 200'000; i++) {
    const u64 r = random();
    const u16 port = ports[r % std::size(ports)];
    const unsigned size = r >> 8 & 7 ? 1 : 1u << (r >> 12 & 3) % 3;
    const u32 value = static_cast<u32>(r >> 32);
    if (r >> 16 & 1) {
      ASSERT_EQ(in(port, size), other.chipset.port_read(port, size))
          << std::hex << port << "/" << size << " step " << i;
    } else if (port != 0x606 || size == 1) {
      out(port, value, size);
      other.chipset.port_write(port, size, value);
    }
    if (r >> 17 & 1) {
      const u64 gpa = 0xfec00000 + (r >> 18 & 1) * 0x10;
      const unsigned width = r >> 19 & 3 ? 4 : 1;
      const u64 word = r >> 20 & 1 ? 0x10 + (r >> 40 & 0x3f) : r >> 24;
      if (r >> 21 & 1) {
        ASSERT_EQ(bus.mmio_read(cpu, Gpa{gpa}, width), other.chipset.mmio_read(Gpa{gpa}, width)) << "step " << i;
      } else {
        bus.mmio_write(cpu, Gpa{gpa}, width, word);
        other.chipset.mmio_write(Gpa{gpa}, width, word);
      }
    }
    if ((r >> 22 & 15) == 0) at(board.now + (r >> 44 & 0xfffff)), other.now = board.now;
  }
  monitor.begin();
  EXPECT_EQ(board.text, other.text);
}

// A core that was taken over moves `head` as it likes: no more than a ring is taken at a time.
TEST(SerialRing, AHeadThatLiesIsBounded) {
  channel::SerialRing ring;
  channel::SerialTaker taker;
  for (u32 head : {~u32{0}, u32{5}, u32{0x80000000}}) {
    ring.head = head;
    u32 n = 0;
    EXPECT_LE(taker.take(ring, [&](u8) { n++; }), channel::SerialRing::kBytes);
    EXPECT_LE(n, channel::SerialRing::kBytes);
  }
}

}  // namespace
}  // namespace trapline::core
