// The block device's requests, right and wrong, over a disk in memory.
#include "devices/virtio/blk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <deque>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using test::Buffer;

constexpr u64 kHeader = 0x50000, kData = 0x100000, kStatus = 0x60000;
enum Type : u32 { in = 0, out = 1, flush = 4, get_id = 8, discard = 11, write_zeroes = 13 };

struct MemoryDisk final : Disk {
  Facts known{.bytes = 64 * 512, .read_only = false, .discards = true, .serial = "disk 0"};
  std::vector<u8> bytes = std::vector<u8>(64 * 512, 0xee);
  std::vector<DiskJob::Kind> seen;
  std::vector<bool> through;
  std::deque<std::unique_ptr<DiskJob>> held;
  bool holds = false;
  int error = 0;
  Listener* listener = nullptr;

  const Facts& facts() const override { return known; }
  void attach(Listener& l) override { listener = &l; }
  void submit(std::unique_ptr<DiskJob> job) override {
    held.push_back(std::move(job));
    if (!holds) finish();
  }
  void finish() {
    auto job = std::move(held.front());
    held.pop_front();
    seen.push_back(job->kind);
    through.push_back(job->through);
    u64 at = job->offset;
    for (const iovec& v : job->data) {
      if (error == 0 && job->kind == DiskJob::Kind::read) std::memcpy(v.iov_base, &bytes.at(at), v.iov_len);
      if (error == 0 && job->kind == DiskJob::Kind::write) std::memcpy(&bytes.at(at), v.iov_base, v.iov_len);
      at += v.iov_len;
    }
    if (job->kind == DiskJob::Kind::discard || job->kind == DiskJob::Kind::write_zeroes)
      std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(job->offset), job->bytes, u8{0});
    job->done(error);
  }
  void go() override {}
  void settle() override {}
};

struct BlkTest : testing::Test {
  test::FakeDma dma;
  test::FakeHost host;
  test::FakeTransport transport;
  MemoryDisk* disk = new MemoryDisk;
  Blk* blk = nullptr;
  std::unique_ptr<Device> device;
  std::optional<test::SplitDriver> driver{std::in_place, dma, u16{16}};

  BlkTest() { plug(); }
  void plug(u64 features = feature::version_1 | feature::indirect_desc | 1 << 9) {
    auto backend = std::make_unique<Blk>(std::unique_ptr<Disk>{disk}, 2);
    blk = backend.get();
    device = std::make_unique<Device>(std::move(backend), dma, host);
    device->attach(transport);
    test::bring_up(*device, features, driver->place());
  }
  void replug(u64 features = feature::version_1 | feature::indirect_desc | 1 << 9) {
    auto next = new MemoryDisk;
    next->known = disk->known;
    disk = next;
    driver.emplace(dma, u16{16});
    std::memset(dma.ram.host(Gpa{test::DriverRing::kTable}), 0, 0x30000);
    plug(features);
  }
  // The status, and how much was used; 0xff: no answer.
  struct Answer {
    u32 status, used;
    bool operator==(const Answer&) const = default;
  };
  void ask(u32 type, u64 sector, std::vector<Buffer> data) {
    struct {
      u32 type, reserved;
      u64 sector;
    } header{type, 0, sector};
    dma.put(kHeader, header);
    dma.put<u8>(kStatus, 0xff);
    std::vector<Buffer> chain{{kHeader, sizeof header}};
    chain.insert(chain.end(), data.begin(), data.end());
    chain.push_back({kStatus, 1, true});
    driver->add(chain);
    device->notify(0);
  }
  Answer answer() {
    const auto done = driver->used();
    return {dma.get<u8>(kStatus), done ? done->length : ~0u};
  }
  Answer request(u32 type, u64 sector, const std::vector<Buffer>& data = {}) {
    ask(type, sector, data);
    return answer();
  }
  template <class T>
  T config(u64 offset) {
    T value{};
    device->read_config(offset, {reinterpret_cast<u8*>(&value), sizeof value});
    return value;
  }
};

TEST_F(BlkTest, ReadsAndWritesWhereItIsTold) {
  dma.put<u64>(kData, 0x0102030405060708);
  dma.put<u64>(kData + 0x1000, 0x1112131415161718);
  EXPECT_EQ(request(out, 3, {{kData, 512}, {kData + 0x1000, 1024}}), (Answer{0, 1}));
  EXPECT_EQ(disk->bytes[3 * 512], 8);
  EXPECT_EQ(disk->bytes[4 * 512], 0x18);
  EXPECT_EQ(disk->bytes[3 * 512 - 1], 0xee);
  EXPECT_EQ(disk->bytes[6 * 512], 0xee);
  EXPECT_EQ(request(in, 4, {{kData + 0x2000, 100, true}, {kData + 0x3000, 412, true}}), (Answer{0, 513}));
  EXPECT_EQ(dma.get<u64>(kData + 0x2000), 0x1112131415161718u);
  EXPECT_EQ(host.interrupts, 2u);
}

TEST_F(BlkTest, NothingOutsideTheDisk) {
  EXPECT_EQ(request(in, 64, {{kData, 512, true}}), (Answer{1, 1}));
  EXPECT_EQ(request(in, 63, {{kData, 1024, true}}), (Answer{1, 1}));
  EXPECT_EQ(request(out, ~u64{0}, {{kData, 512}}), (Answer{1, 1}));
  EXPECT_EQ(request(out, u64{1} << 55, {{kData, 512}}), (Answer{1, 1}));
  EXPECT_EQ(request(in, 0, {{kData, 511, true}}), (Answer{1, 1}));  // no whole sector
  EXPECT_EQ(request(in, 63, {{kData, 512, true}}), (Answer{0, 513}));
  EXPECT_EQ(disk->seen.size(), 1u);
}

TEST_F(BlkTest, ErrorsOfTheHostAreTheGuests) {
  for (const int error : {ENOSPC, EIO}) {
    disk->error = error;
    EXPECT_EQ(request(out, 0, {{kData, 512}}), (Answer{1, 1}));
    EXPECT_EQ(request(in, 0, {{kData, 512, true}}), (Answer{1, 1}));
    EXPECT_EQ(request(flush, 0), (Answer{1, 1}));
  }
}

TEST_F(BlkTest, FlushComesToTheDisk) {
  EXPECT_EQ(request(flush, 0), (Answer{0, 1}));
  EXPECT_EQ(disk->seen, std::vector{DiskJob::Kind::flush});
}

// 5.2.6.2: a driver that knows no flush takes each write for safe.
TEST_F(BlkTest, WithoutFlushEachWriteIsThrough) {
  EXPECT_EQ(request(out, 0, {{kData, 512}}), (Answer{0, 1}));
  EXPECT_FALSE(disk->through.back());
  replug(feature::version_1);
  EXPECT_EQ(request(out, 0, {{kData, 512}}), (Answer{0, 1}));
  EXPECT_TRUE(disk->through.back());
}

TEST_F(BlkTest, TellsItsSerial) {
  EXPECT_EQ(request(get_id, 0, {{kData, 20, true}}), (Answer{0, 21}));
  EXPECT_STREQ(reinterpret_cast<const char*>(dma.ram.host(Gpa{kData})), "disk 0");
  EXPECT_EQ(request(get_id, 0, {{kData, 19, true}}), (Answer{1, 1}));
}

TEST_F(BlkTest, DiscardsAndZeroesRanges) {
  struct Range {
    u64 sector;
    u32 sectors, flags;
  };
  const auto range = [&](u32 type, const Range& r) {
    dma.put(kData, r);
    return request(type, 0, {{kData, sizeof r}});
  };
  EXPECT_EQ(range(write_zeroes, {2, 2, 0}), (Answer{0, 1}));
  EXPECT_EQ(disk->bytes[2 * 512], 0);
  EXPECT_EQ(disk->bytes[4 * 512], 0xee);
  EXPECT_EQ(range(write_zeroes, {2, 2, 1}), (Answer{0, 1}));
  EXPECT_EQ(range(discard, {60, 4, 0}), (Answer{0, 1}));
  EXPECT_EQ(range(discard, {60, 5, 0}), (Answer{1, 1}));
  EXPECT_EQ(range(discard, {0, 1, 1}), (Answer{1, 1}));  // no such flag
  EXPECT_EQ(range(write_zeroes, {0, 1, 2}), (Answer{1, 1}));
  EXPECT_EQ(range(write_zeroes, {~u64{0}, 1, 0}), (Answer{1, 1}));
  EXPECT_EQ(range(write_zeroes, {0, ~0u, 0}), (Answer{1, 1}));
  EXPECT_EQ(request(discard, 0, {{kData, 8}}), (Answer{1, 1}));
  disk->known.discards = false;
  replug();
  EXPECT_EQ(range(discard, {0, 1, 0}), (Answer{2, 1}));
  EXPECT_EQ(range(write_zeroes, {0, 1, 0}), (Answer{0, 1}));
}

TEST_F(BlkTest, AReadOnlyDiskStaysAsItIs) {
  disk->known.read_only = true;
  replug();
  EXPECT_EQ(device->device_features() >> 5 & 1, 1u);
  EXPECT_EQ(request(out, 0, {{kData, 512}}), (Answer{1, 1}));
  EXPECT_EQ(request(write_zeroes, 0, {{kData, 16}}), (Answer{2, 1}));
  EXPECT_EQ(request(in, 0, {{kData, 512, true}}), (Answer{0, 513}));
  EXPECT_EQ(disk->seen, std::vector{DiskJob::Kind::read});
}

TEST_F(BlkTest, WhatIsNoRequest) {
  EXPECT_EQ(request(99, 0), (Answer{2, 1}));
  driver->add({{kHeader, 15}, {kStatus, 1, true}});  // a short header
  device->notify(0);
  EXPECT_EQ(answer(), (Answer{1, 1}));
  driver->add({{kHeader, 16}});  // nowhere to put the status
  device->notify(0);
  EXPECT_EQ(driver->used()->length, 0u);
  EXPECT_TRUE(disk->seen.empty());
  EXPECT_FALSE(device->status() & status::needs_reset);
}

TEST_F(BlkTest, SaysWhatItIs) {
  EXPECT_EQ(config<u64>(0), 64u);
  EXPECT_EQ(config<u32>(12), 254u);  // segments
  EXPECT_EQ(config<u32>(20), 512u);
  EXPECT_EQ(config<u16>(34), 2u);  // queues
  EXPECT_EQ(config<u8>(59), 0u);
  EXPECT_EQ(config<u64>(56), 1u);  // zeroes may unmap; the rest is not there
}

// The memory of a request in flight is the disk's until it is done.
TEST_F(BlkTest, AResetWaitsForTheDisk) {
  disk->holds = true;
  ask(in, 0, {{kData, 512, true}});
  ask(in, 1, {{kData + 0x1000, 512, true}});
  device->write_status(0);
  EXPECT_NE(device->status(), 0u);
  disk->finish();
  EXPECT_NE(device->status(), 0u);
  disk->finish();
  EXPECT_EQ(device->status(), 0u);
  EXPECT_EQ(driver->used(), std::nullopt);
}

TEST_F(BlkTest, OneInterruptForAllThatWereDoneTogether) {
  disk->holds = true;
  for (u64 i = 0; i < 3; i++) ask(in, i, {{kData, 512, true}});
  for (unsigned i = 0; i < 3; i++) disk->finish();
  EXPECT_EQ(host.interrupts, 0u);
  disk->listener->some_done();
  EXPECT_EQ(host.interrupts, 1u);
}

}  // namespace
}  // namespace trapline::devices::virtio
