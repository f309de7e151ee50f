#include "devices/ide.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "support/virtio_driver.h"
#include "unit/devices/fakes.h"

namespace trapline::devices {
namespace {

struct FakeCd final : CdImage {
  bool broken = false;
  u32 blocks() const override { return 1000; }
  bool read(u32 block, std::span<u8, kCdBlock> to) override {
    for (std::size_t i = 0; i < to.size(); i++) to[i] = static_cast<u8>(block + i / 256);
    return !broken;
  }
};

struct IdeTest : testing::Test {
  FakeLine irq;
  FakeCd cd;
  test::FakeDma dma;
  IdeChannel ide{irq, cd, &dma};

  u8 in(u64 reg) { return static_cast<u8>(ide.read(reg, 1)); }
  void out(u64 reg, u8 value) { ide.write(reg, 1, value); }
  u8 status() { return static_cast<u8>(ide.control_port().read(0, 1)); }  // without acknowledging
  void send(const std::vector<u8>& packet, u8 features = 0, u32 limit = 0xfffe) {
    out(1, features);
    out(4, static_cast<u8>(limit));
    out(5, static_cast<u8>(limit >> 8));
    out(7, 0xa0);
    ASSERT_EQ(status(), 0x58);
    EXPECT_EQ(in(2) & 3, 1);  // a command is expected
    std::vector<u8> all = packet;
    all.resize(12);
    for (unsigned i = 0; i < 12; i += 2) ide.write(0, 2, all[i] | all[i + 1] << 8);
  }
  // All that DRQ offers; `bursts`: their sizes.
  std::vector<u8> receive(std::vector<u32>* bursts = nullptr) {
    std::vector<u8> bytes;
    while (status() & 8) {
      EXPECT_TRUE(irq.up);
      in(7);
      EXPECT_EQ(in(2) & 3, 2);
      const u32 burst = in(4) | u32{in(5)} << 8;
      if (bursts) bursts->push_back(burst);
      for (u32 i = 0; i < burst; i += 2) {
        const u64 v = ide.read(0, 2);
        bytes.push_back(static_cast<u8>(v));
        if (i + 1 < burst) bytes.push_back(static_cast<u8>(v >> 8));
      }
    }
    EXPECT_EQ(in(2) & 3, 3);
    return bytes;
  }
  std::vector<u8> sense() {
    send({0x03, 0, 0, 0, 18});
    const auto s = receive();
    return {s[2], s[12]};
  }
  void ready() { sense(); }  // the unit attention of power-on is told
  static std::vector<u8> read10(u32 block, u16 count) {
    return {0x28,
            0,
            static_cast<u8>(block >> 24),
            static_cast<u8>(block >> 16),
            static_cast<u8>(block >> 8),
            static_cast<u8>(block),
            0,
            static_cast<u8>(count >> 8),
            static_cast<u8>(count)};
  }
};

TEST_F(IdeTest, ShowsThePacketSignature) {
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(in(2), 1);
  EXPECT_EQ(in(3), 1);
  EXPECT_EQ(in(4), 0x14);
  EXPECT_EQ(in(5), 0xeb);
  out(4, 0), out(5, 0);
  ide.control_port().write(0, 1, 4);
  ide.control_port().write(0, 1, 0);
  EXPECT_EQ(in(4), 0x14);
  EXPECT_EQ(in(5), 0xeb);
}

TEST_F(IdeTest, TheSecondDeviceIsAbsent) {
  out(6, 0x10);
  EXPECT_EQ(status(), 0);
  out(7, 0xa1);
  EXPECT_EQ(status(), 0);
  EXPECT_FALSE(irq.up);
}

TEST_F(IdeTest, IdentifiesItselfAsAPacketDeviceOnly) {
  out(7, 0xec);
  EXPECT_EQ(in(7), 0x51);
  EXPECT_EQ(in(1), 4);
  EXPECT_EQ(in(4), 0x14);
  out(7, 0xa1);
  EXPECT_TRUE(irq.up);
  ASSERT_EQ(in(7), 0x58);
  std::vector<u16> words;
  for (unsigned i = 0; i < 256; i++) words.push_back(static_cast<u16>(ide.read(0, 2)));
  EXPECT_EQ(words[0], 0x85c0);
  EXPECT_EQ(words[27], 'T' << 8 | 'R');
  EXPECT_EQ(words[49] & 0x300, 0x300);
  EXPECT_EQ(status(), 0x50);
}

TEST_F(IdeTest, UnitAttentionIsToldOnce) {
  send({0x00});
  EXPECT_EQ(in(7), 0x51);
  EXPECT_EQ(in(1) >> 4, 6);
  EXPECT_EQ(sense(), (std::vector<u8>{6, 0x29}));
  send({0x00});
  EXPECT_EQ(in(7), 0x50);
}

TEST_F(IdeTest, ReadsBlocksByPio) {
  ready();
  send(read10(7, 3));
  std::vector<u32> bursts;
  const auto bytes = receive(&bursts);
  ASSERT_EQ(bytes.size(), 3u * 2048);
  EXPECT_EQ(bursts, (std::vector<u32>{6144}));
  for (unsigned i = 0; i < bytes.size(); i += 256) EXPECT_EQ(bytes[i], 7 + i / 2048 + i % 2048 / 256) << i;
  EXPECT_EQ(in(7), 0x50);
}

TEST_F(IdeTest, BurstsAreNoLongerThanTheHostAllows) {
  ready();
  send(read10(1, 2), 0, 1500);
  std::vector<u32> bursts;
  EXPECT_EQ(receive(&bursts).size(), 4096u);
  EXPECT_EQ(bursts, (std::vector<u32>{1500, 1500, 1096}));
}

TEST_F(IdeTest, ReadsByDmaIntoPieces) {
  ready();
  constexpr u64 kTable = 0x1000;
  dma.put<u32>(kTable, 0x4000), dma.put<u32>(kTable + 4, 3000);
  dma.put<u32>(kTable + 8, 0x8000), dma.put<u32>(kTable + 12, 1096 | 1u << 31);
  ide.bus_master().write(4, 4, kTable);
  ide.bus_master().write(0, 1, 8);
  send(read10(5, 2), 1);
  EXPECT_FALSE(irq.up);  // it waits for the bus master
  ide.bus_master().write(0, 1, 9);
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(ide.bus_master().read(2, 1) & 7, 4u);
  EXPECT_EQ(in(7), 0x50);
  EXPECT_EQ(dma.get<u8>(0x4000), 5);
  EXPECT_EQ(dma.get<u8>(0x4000 + 2048), 6);
  EXPECT_EQ(dma.get<u8>(0x8000), 6 + 3);  // byte 3000
  EXPECT_EQ(dma.writes.size(), 2u);
  ide.bus_master().write(2, 1, 4);
  EXPECT_EQ(ide.bus_master().read(2, 1) & 7, 0u);
}

TEST_F(IdeTest, ADmaTableThatIsTooShortOrNowhereFails) {
  ready();
  for (const u32 table : {0x1000u, 0xfffffff8u}) {
    dma.put<u32>(0x1000, 0x4000), dma.put<u32>(0x1004, 2048 | 1u << 31);
    ide.bus_master().write(4, 4, table);
    send(read10(5, 2), 1);
    ide.bus_master().write(0, 1, 8);
    ide.bus_master().write(0, 1, 9);
    EXPECT_EQ(ide.bus_master().read(2, 1) & 3, 2u);
    EXPECT_EQ(in(7) & 1, 1);
  }
}

TEST_F(IdeTest, CapacityAndContents) {
  ready();
  send({0x25});
  EXPECT_EQ(receive(), (std::vector<u8>{0, 0, 3, 0xe7, 0, 0, 8, 0}));
  send({0x43, 0, 0, 0, 0, 0, 0, 0, 100});
  const auto toc = receive();
  ASSERT_EQ(toc.size(), 20u);
  EXPECT_EQ(toc[1], 18);
  EXPECT_EQ(toc[14], 0xaa);
  EXPECT_EQ(toc[18] << 8 | toc[19], 1000);
  send({0x12, 0, 0, 0, 5});
  EXPECT_EQ(receive(), (std::vector<u8>{5, 0x80, 0, 0x21, 31}));
}

TEST_F(IdeTest, SaysWhatIsWrong) {
  ready();
  send(read10(999, 2));
  EXPECT_EQ(in(7), 0x51);
  EXPECT_EQ(sense(), (std::vector<u8>{5, 0x21}));
  send({0x2a});  // WRITE
  EXPECT_EQ(sense(), (std::vector<u8>{5, 0x20}));
  cd.broken = true;
  send(read10(0, 1));
  EXPECT_EQ(in(7), 0x51);
  EXPECT_EQ(sense(), (std::vector<u8>{3, 0x11}));
}

TEST_F(IdeTest, InterruptsCanBeHeldBack) {
  ready();
  in(7);
  ide.control_port().write(0, 1, 2);
  send({0x00});
  EXPECT_FALSE(irq.up);
  ide.control_port().write(0, 1, 0);
  EXPECT_TRUE(irq.up);
}

}  // namespace
}  // namespace trapline::devices
