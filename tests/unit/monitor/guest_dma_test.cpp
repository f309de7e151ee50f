// What devices write reaches the core before the guest is told, and no core can keep the monitor waiting for ever.
#include "monitor/guest_dma.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <thread>

#include "channel/futex.h"

namespace trapline::monitor {
namespace {

struct GuestDmaTest : testing::Test {
  static constexpr u64 kSize = 2 * MiB;
  GuestDma dma;
  std::unique_ptr<channel::CodeWrites> writes = std::make_unique<channel::CodeWrites>();
  std::atomic<u64>* lines = nullptr;  // the core's mapping

  GuestDmaTest() {
    auto made = CodeLines::create(GuestMemory::frames_of(kSize));
    EXPECT_TRUE(made);
    lines = static_cast<std::atomic<u64>*>(
        ::mmap(nullptr, kSize / kPageSize * sizeof(u64), PROT_READ | PROT_WRITE, MAP_SHARED, made->fd(), 0));
    dma.attach(std::move(*GuestMemory::anonymous(kSize)), std::move(*made), *writes);
  }
};

TEST_F(GuestDmaTest, OnlyRamIsReached) {
  EXPECT_TRUE(dma.bytes(Gpa{kSize - 4}, 4));
  EXPECT_FALSE(dma.bytes(Gpa{kSize - 4}, 5));
  EXPECT_FALSE(dma.bytes(Gpa{0xa0000}, 1));
  EXPECT_FALSE(dma.bytes(Gpa{~u64{0}}, 2));
}

TEST_F(GuestDmaTest, WritesBesideCodeAskNobody) {
  lines[0x102].store(1);
  dma.written(Gpa{0x101000}, 0x1000);
  dma.written(Gpa{0x103000}, 0x1000);
  dma.written(Gpa{0x102000}, 0);
  EXPECT_EQ(writes->asked.load(), 0u);
}

TEST_F(GuestDmaTest, AWriteOverCodeWaitsForTheAnswer) {
  lines[0x102].store(1);
  std::atomic<bool> returned{false};
  std::thread device{[&] {
    dma.written(Gpa{0x100ff0}, 0x3000);
    returned = true;
  }};
  while (writes->asked.load() == 0) std::this_thread::yield();
  EXPECT_EQ(writes->at.load(), 0x102000u);
  EXPECT_EQ(writes->bytes.load(), 0x100ff0u + 0x3000 - 0x102000);
  EXPECT_FALSE(returned);
  writes->answered.store(1);
  channel::futex_wake(writes->answered);
  device.join();
}

TEST_F(GuestDmaTest, NobodyWaitsForACoreThatIsGone) {
  lines[0x102].store(1);
  std::thread device{[&] { dma.written(Gpa{0x102000}, 8); }};
  while (writes->asked.load() == 0) std::this_thread::yield();
  writes->answered.store(77);  // nonsense is no answer
  dma.abandon();
  device.join();
}

}  // namespace
}  // namespace trapline::monitor
