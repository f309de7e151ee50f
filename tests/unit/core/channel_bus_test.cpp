#include "channel/channel.h"

#include <gtest/gtest.h>

#include <thread>

#include "channel/futex.h"
#include "core/channel_bus.h"
#include "cpu/code_map.h"

namespace trapline::core {
namespace {

// A monitor that answers every request with a function of it.
class Echo {
 public:
  explicit Echo(channel::VcpuPages& pages) : pages_{pages}, thread_{[this] { serve(); }} {}
  ~Echo() {
    pages_.turn.store(static_cast<u32>(channel::Turn::closed));
    channel::futex_wake(pages_.turn);
    thread_.join();
  }
  std::vector<channel::Request> seen;

 private:
  void serve() {
    for (;;) {
      pages_.server_sleeps.store(1);
      for (u32 t; (t = pages_.turn.load()) != static_cast<u32>(channel::Turn::requested);) {
        if (t == static_cast<u32>(channel::Turn::closed)) return;
        channel::futex_wait(pages_.turn, t);
      }
      pages_.server_sleeps.store(0);
      const channel::Request r = pages_.request;
      seen.push_back(r);
      if (r.kind == static_cast<u32>(channel::RequestKind::port_read_many))
        for (u32 i = 0; i < r.count * r.size; i++) pages_.bulk[i] = static_cast<u8>(seen.size() * 100 + i % 50);
      pages_.reply = {0xfedcba9876543210, 77};
      u32 expected = static_cast<u32>(channel::Turn::requested);
      pages_.turn.compare_exchange_strong(expected, static_cast<u32>(channel::Turn::replied));
      if (pages_.client_sleeps.load()) channel::futex_wake(pages_.turn);
    }
  }
  channel::VcpuPages& pages_;
  std::thread thread_;
};

class ChannelTest : public testing::Test {
 protected:
  ChannelTest() : channel{*channel::Channel::create(2)}, ram{*GuestMemory::anonymous(1 * MiB)}, code{ram} {
    cpu.clock = &clock;
    cpu.code = &code;
    cpu.attention = &channel.vcpu(0).attention;
    code.add_vcpu(&cpu);
  }
  channel::Channel channel;
  GuestMemory ram;
  cpu::CodeMap code;
  cpu::Clock clock;
  cpu::Vcpu cpu;
};

TEST_F(ChannelTest, RepliesAreMaskedToTheWidthAskedFor) {
  Echo monitor{channel.vcpu(0)};
  ChannelBus bus{channel.vcpu(0), 1, false};
  EXPECT_EQ(bus.port_read(cpu, 0x3f8, 1), 0x10u);
  EXPECT_EQ(bus.port_read(cpu, 0x3f8, 2), 0x3210u);
  EXPECT_EQ(bus.port_read(cpu, 0x3f8, 4), 0x76543210u);
  EXPECT_EQ(bus.mmio_read(cpu, Gpa{0xfec00000}, 8), 0xfedcba9876543210u);
  EXPECT_EQ(bus.pic_acknowledge(cpu), 0x10);
}

TEST_F(ChannelTest, RequestsCarryTheirFields) {
  Echo monitor{channel.vcpu(0)};
  ChannelBus bus{channel.vcpu(0), 1, false};
  bus.port_write(cpu, 0xcf8, 4, 0x80000000);
  bus.mmio_write(cpu, Gpa{0xfed00010}, 2, 0xabcd);
  bus.ioapic_eoi(cpu, 0x41);
  ASSERT_EQ(monitor.seen.size(), 3u);
  EXPECT_EQ(monitor.seen[0].port, 0xcf8);
  EXPECT_EQ(monitor.seen[0].size, 4);
  EXPECT_EQ(monitor.seen[0].value, 0x80000000u);
  EXPECT_EQ(monitor.seen[1].address, Gpa{0xfed00010});
  EXPECT_EQ(monitor.seen[1].value, 0xabcdu);
  EXPECT_EQ(monitor.seen[2].value, 0x41u);
}

TEST_F(ChannelTest, LongTransfersGoInPieces) {
  Echo monitor{channel.vcpu(0)};
  ChannelBus bus{channel.vcpu(0), 1, false};
  std::vector<u8> out(2 * 3000);
  bus.port_read_many(cpu, 0x510, 2, 3000, out.data());
  ASSERT_EQ(monitor.seen.size(), 2u);
  EXPECT_EQ(monitor.seen[0].count, channel::kBulkBytes / 2);
  EXPECT_EQ(monitor.seen[1].count, 3000 - channel::kBulkBytes / 2);
  EXPECT_EQ(out[0], 100);
  EXPECT_EQ(out[channel::kBulkBytes], 200);
  EXPECT_EQ(out.back(), 200 + (6000 - channel::kBulkBytes - 1) % 50);
}

TEST_F(ChannelTest, AnEarlierChipsetDeadlineKicksTheRunningVcpu) {
  Echo monitor{channel.vcpu(0)};
  ChannelBus bus{channel.vcpu(0), 1, true};
  bus.port_write(cpu, 0x40, 1, 0);
  EXPECT_EQ(ChannelBus::chipset_deadline_ns(), 77u);
  EXPECT_TRUE(channel.vcpu(0).attention.load() & cpu::attention::kick);
  channel.vcpu(0).attention = 0;
  bus.port_write(cpu, 0x40, 1, 0);  // the same deadline again is no news
  EXPECT_FALSE(channel.vcpu(0).attention.load() & cpu::attention::kick);
}

TEST_F(ChannelTest, AKickWakesASleeper) {
  channel::VcpuPages& v = channel.vcpu(1);
  std::thread sleeper{[&] {
    v.sleep.store(1);
    while (!(v.attention.load() & cpu::attention::interrupt)) channel::futex_wait(v.sleep, 1);
    v.sleep.store(0);
  }};
  channel::kick(v, cpu::attention::interrupt);
  sleeper.join();
  EXPECT_EQ(v.sleep.load(), 0u);
}

}  // namespace
}  // namespace trapline::core
