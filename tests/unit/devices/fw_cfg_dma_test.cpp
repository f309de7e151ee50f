#include <gtest/gtest.h>

#include "devices/fw_cfg.h"
#include "support/virtio_driver.h"

namespace trapline::devices {
namespace {

constexpr u64 kCommand = 0x1000, kTo = 0x2000;
constexpr u32 kRead = 2, kSkip = 4, kSelect = 8, kWrite = 16;

struct FwCfgDma : testing::Test {
  test::FakeDma dma;
  FwCfg fw{&dma};
  FwCfgDma() { fw.add_file("etc/name", {1, 2, 3, 4, 5, 6}); }

  // What the command leaves in its first word.
  u32 run(u32 control, u32 length, u64 to = kTo) {
    dma.put<u32>(kCommand, __builtin_bswap32(control));
    dma.put<u32>(kCommand + 4, __builtin_bswap32(length));
    dma.put<u64>(kCommand + 8, __builtin_bswap64(to));
    fw.write(8, 4, __builtin_bswap32(static_cast<u32>(kCommand)));
    return __builtin_bswap32(dma.get<u32>(kCommand));
  }
  static constexpr u32 file(u32 n) { return (FwCfg::file_first + n) << 16; }
};

TEST_F(FwCfgDma, SaysThatItIsThere) {
  fw.write(0, 2, FwCfg::id);
  EXPECT_EQ(fw.read(1, 1), 3u);
  EXPECT_EQ(fw.read(4, 4), __builtin_bswap32(0x51454d55));
  EXPECT_EQ(fw.read(8, 4), __builtin_bswap32(0x20434647));
  FwCfg without;
  without.write(0, 2, FwCfg::id);
  EXPECT_EQ(without.read(1, 1), 1u);
}

TEST_F(FwCfgDma, ReadsAndSkips) {
  dma.put<u64>(kTo, ~u64{0});
  EXPECT_EQ(run(file(0) | kSelect | kRead, 3), 0u);
  EXPECT_EQ(dma.get<u32>(kTo), 0xff030201u);
  EXPECT_EQ(run(kSkip, 1), 0u);
  EXPECT_EQ(run(kRead, 4), 0u);  // two are left, the rest is zeros
  EXPECT_EQ(dma.get<u32>(kTo), 0x00000605u);
  EXPECT_EQ(run(file(7) | kSelect | kRead, 4), 0u);  // no such item
  EXPECT_EQ(dma.get<u32>(kTo), 0u);
  EXPECT_EQ(dma.writes[0], (std::pair<u64, u64>{kTo, 3}));  // engines are told
  EXPECT_EQ(dma.writes[1], (std::pair<u64, u64>{kCommand, 4}));
}

TEST_F(FwCfgDma, RefusesWhatIsNotMemory) {
  EXPECT_EQ(run(file(0) | kSelect | kWrite, 3), 1u);
  EXPECT_EQ(run(file(0) | kSelect | kRead, 6, 4 * MiB - 3), 1u);
  EXPECT_EQ(run(file(0) | kSelect | kRead, 6, ~u64{0} - 2), 1u);
  EXPECT_EQ(run(file(0) | kSelect | kRead, ~u32{0}, 0), 1u);
  fw.write(4, 4, ~u32{0});  // a command nowhere
  fw.write(8, 4, ~u32{0});
  EXPECT_EQ(run(file(0) | kSelect | kRead, 3), 0u);  // the upper half counted for that one only
}

}  // namespace
}  // namespace trapline::devices
