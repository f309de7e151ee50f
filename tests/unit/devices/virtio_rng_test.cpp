#include "devices/virtio/rng.h"

#include <gtest/gtest.h>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

struct RngTest : testing::Test {
  test::FakeDma dma;
  test::FakeHost host;
  test::FakeTransport transport;
  std::size_t most = ~std::size_t{0};  // what the source gives
  Device device{std::make_unique<Rng>([this](std::span<std::byte> out) {
                  const std::size_t n = std::min(out.size(), most);
                  std::fill_n(out.begin(), n, std::byte{7});
                  return n;
                }),
                dma, host};
  test::SplitDriver driver{dma, 8};
  RngTest() {
    device.attach(transport);
    test::bring_up(device, feature::version_1, driver.place());
  }
  u32 answer(const std::vector<test::Buffer>& chain) {
    driver.add(chain);
    device.notify(0);
    const auto done = driver.used();
    return done ? done->length : ~u32{0};
  }
};

TEST_F(RngTest, FillsEveryBuffer) {
  EXPECT_EQ(answer({{0x100000, 5, true}, {0x100010, 3, true}}), 8u);
  EXPECT_EQ(dma.get<u8>(0x100004), 7u);
  EXPECT_EQ(dma.get<u8>(0x100005), 0u);
  EXPECT_EQ(dma.get<u8>(0x100012), 7u);
}

TEST_F(RngTest, GivesWhatThereIsAndNotMoreThanAPage) {
  EXPECT_EQ(answer({{0x100000, 0x10000, true}}), 4096u);
  most = 3;
  EXPECT_EQ(answer({{0x200000, 8, true}, {0x300000, 8, true}}), 3u);
  EXPECT_EQ(dma.get<u8>(0x300000), 0u);
  most = 0;
  EXPECT_EQ(answer({{0x200000, 8, true}}), 0u);
}

TEST_F(RngTest, BuffersThatItMayNotWriteGoBackEmpty) {
  EXPECT_EQ(answer({{0x100000, 8}}), 0u);
  EXPECT_EQ(dma.get<u8>(0x100000), 0u);
}

}  // namespace
}  // namespace trapline::devices::virtio
