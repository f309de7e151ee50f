// The balloon: what is given back, and what is no memory.
#include "devices/virtio/balloon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using namespace trapline::test;
using testing::ElementsAre;
using testing::Pair;

struct BalloonTest : testing::Test {
  FakeDma dma;
  FakeHost host;
  FakeTransport transport;
  Balloon* balloon = nullptr;
  std::unique_ptr<Device> device;
  SplitDriver driver{dma, 16};

  void plug(unsigned queue) {
    auto made = std::make_unique<Balloon>(dma);
    balloon = made.get();
    device = std::make_unique<Device>(std::move(made), dma, host);
    device->attach(transport);
    bring_up(*device, feature::version_1 | 1 << 2 | 1 << 5, driver.place());
    if (queue == 0) return;
    // The same ring as another queue.
    device->write_status(0);
    bring_up(*device, feature::version_1 | 1 << 2 | 1 << 5, driver.place(), queue);
  }
  void numbers(std::initializer_list<u32> pages) {
    u64 at = 0x50000;
    for (const u32 page : pages) dma.put(at, page), at += 4;
    driver.add({{0x50000, static_cast<u32>(4 * pages.size())}});
    device->notify(0);
    EXPECT_TRUE(driver.used());
  }
  u32 config(u64 offset) {
    u32 value = 0;
    device->read_config(offset, {reinterpret_cast<u8*>(&value), 4});
    return value;
  }
};

TEST_F(BalloonTest, PagesGoBackNeighboursTogether) {
  plug(0);
  numbers({5, 6, 7, 20, 12, 11, 10, 300});
  EXPECT_THAT(dma.given_back,
              ElementsAre(Pair(0x5000, 0x3000), Pair(0x14000, 0x1000), Pair(0xa000, 0x3000), Pair(0x12c000, 0x1000)));
}

TEST_F(BalloonTest, FreePagesThatAreReportedGoBack) {
  plug(2);
  driver.add({{0x100000, 0x40000, true}, {0x200000, 0x10000, true}});
  device->notify(2);
  EXPECT_TRUE(driver.used());
  EXPECT_THAT(dma.given_back, ElementsAre(Pair(0x100000, 0x40000), Pair(0x200000, 0x10000)));
}

TEST_F(BalloonTest, TheTargetIsInTheConfigurationAndAChangeIsTold) {
  plug(0);
  EXPECT_EQ(config(0), 0u);
  balloon->set_target(3 * 4096);
  balloon->set_target(3 * 4096);
  EXPECT_EQ(config(0), 3u);
  EXPECT_EQ(host.config_interrupts, 1u);
  const u8 two[] = {2, 0, 0, 0};
  device->write_config(4, two);
  device->write_config(0, two);  // the host's
  EXPECT_EQ(config(0), 3u);
  EXPECT_EQ(balloon->actual(), 2u * 4096);
}

}  // namespace
}  // namespace trapline::devices::virtio
