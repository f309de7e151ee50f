// Disks over files: by io_uring, by threads and at once, with the same outcome; snapshots; what cannot be opened.
#include "monitor/storage/file_disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

namespace trapline::monitor {
namespace {

using devices::virtio::Disk;
using devices::virtio::DiskJob;
using testing::HasSubstr;

constexpr u64 kBytes = 256 * KiB;

struct File {
  std::string path = "/tmp/trapline-disk-XXXXXX";
  File() { ::close(::mkstemp(path.data())); }
  ~File() { ::unlink(path.c_str()); }
  void fill(const std::vector<u8>& bytes) const {
    std::ofstream{path, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                static_cast<std::streamsize>(bytes.size()));
  }
  std::vector<u8> bytes() const {
    std::ifstream in{path, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
};

std::vector<u8> pattern(u64 bytes, u64 seed) {
  std::mt19937_64 random{seed};
  std::vector<u8> out(bytes);
  for (u8& b : out) b = static_cast<u8>(random());
  return out;
}

struct Outcome {
  std::atomic<int> done{0}, errors{0}, batches{0};
};

struct Job final : DiskJob {
  explicit Job(Outcome& o) : outcome{o} {}
  void done(int error) override {
    outcome.errors += error != 0;
    outcome.done++;
  }
  Outcome& outcome;
};

enum class How { ring, pool, at_once };
void PrintTo(How how, std::ostream* out) {
  *out << (how == How::ring ? "ring" : how == How::pool ? "pool" : "at_once");
}

std::unique_ptr<FileDisk> make(How how, OpenDisk disk) {
  switch (how) {
    case How::ring:
      return make_ring_disk(disk);
    case How::pool:
      return make_pool_disk(std::move(disk));
    default:
      return make_inline_disk(std::move(disk));
  }
}

struct DiskTest : testing::TestWithParam<How>, Disk::Listener {
  File file;
  Outcome outcome;
  std::unique_ptr<FileDisk> disk;
  std::vector<std::thread> threads;
  void some_done() override { outcome.batches++; }

  bool open(machine::DiskConfig config = {}) {
    config.path = file.path;
    auto opened = open_disk(config);
    EXPECT_TRUE(opened) << opened.error();
    disk = make(GetParam(), std::move(*opened));
    if (!disk) return false;
    disk->attach(*this);
    for (auto& body : disk->threads()) threads.emplace_back(std::move(body));
    return true;
  }
  void close() {
    if (!disk) return;
    disk->stop();
    for (auto& t : threads) t.join();
    threads.clear();
    disk->settle();
  }
  ~DiskTest() override { close(); }
  std::unique_ptr<Job> job(DiskJob::Kind kind, u64 offset, std::vector<iovec> data) {
    auto j = std::make_unique<Job>(outcome);
    j->kind = kind, j->offset = offset, j->data = std::move(data);
    for (const iovec& v : j->data) j->bytes += v.iov_len;
    return j;
  }
  std::unique_ptr<Job> range(DiskJob::Kind kind, u64 offset, u64 bytes) {
    auto j = job(kind, offset, {});
    j->bytes = bytes;
    return j;
  }
  void await(int count) {
    disk->go();
    while (outcome.done < count) std::this_thread::yield();
  }
};
#define OPEN_OR_SKIP(...) \
  if (!open(__VA_ARGS__)) GTEST_SKIP() << "this host gives no io_uring"

INSTANTIATE_TEST_SUITE_P(Ways, DiskTest, testing::Values(How::ring, How::pool, How::at_once),
                         testing::PrintToStringParamName());

TEST_P(DiskTest, WhatIsWrittenIsReadAgainAndIsInTheFile) {
  file.fill(std::vector<u8>(kBytes, 0));
  OPEN_OR_SKIP();
  std::vector<u8> expected = pattern(kBytes, 1), read(kBytes);
  int count = 0;
  for (u64 at = 0; at < kBytes; at += 1536, count++) {
    const u64 n = std::min<u64>(1536, kBytes - at), half = n / 2;
    disk->submit(job(DiskJob::Kind::write, at, {{&expected[at], half}, {&expected[at] + half, n - half}}));
  }
  await(count);
  for (u64 at = 0; at < kBytes; at += 4096, count++) disk->submit(job(DiskJob::Kind::read, at, {{&read[at], 4096}}));
  disk->submit(job(DiskJob::Kind::flush, 0, {}));
  auto through = job(DiskJob::Kind::write, 0, {{expected.data(), 512}});
  through->through = true;
  disk->submit(std::move(through));
  await(count + 2);
  EXPECT_EQ(outcome.errors, 0);
  EXPECT_EQ(read, expected);
  EXPECT_EQ(file.bytes(), expected);
}

TEST_P(DiskTest, ZeroesAndDiscards) {
  std::vector<u8> expected = pattern(kBytes, 2);
  file.fill(expected);
  OPEN_OR_SKIP({.path = "", .serial = "", .discard = true});
  disk->submit(range(DiskJob::Kind::write_zeroes, 1000, 70000));
  auto unmapped = range(DiskJob::Kind::write_zeroes, 128 * KiB, 8192);
  unmapped->unmap = true;
  disk->submit(std::move(unmapped));
  disk->submit(range(DiskJob::Kind::discard, 200 * KiB, 4096));
  disk->submit(range(DiskJob::Kind::write_zeroes, 0, 0));
  await(4);
  EXPECT_EQ(outcome.errors, 0);
  const std::vector<u8> now = file.bytes();
  ASSERT_EQ(now.size(), kBytes);
  std::fill_n(expected.begin() + 1000, 70000, u8{0});
  std::fill_n(expected.begin() + 128 * KiB, 8192, u8{0});
  std::copy_n(now.begin() + 200 * KiB, 4096, expected.begin() + 200 * KiB);  // as it likes
  EXPECT_EQ(now, expected);
}

TEST_P(DiskTest, AnImageThatWasCutShortIsAnError) {
  file.fill(std::vector<u8>(kBytes, 1));
  OPEN_OR_SKIP();
  ASSERT_EQ(::truncate(file.path.c_str(), 4096), 0);
  std::vector<u8> bytes(8192);
  disk->submit(job(DiskJob::Kind::read, 0, {{bytes.data(), 8192}}));
  disk->submit(job(DiskJob::Kind::read, 65536, {{bytes.data(), 512}}));
  await(2);
  EXPECT_EQ(outcome.errors, 2);
}

TEST_P(DiskTest, ItEndsWithWhatWasSubmitted) {
  file.fill(std::vector<u8>(kBytes, 0));
  OPEN_OR_SKIP();
  std::vector<u8> bytes = pattern(kBytes, 3);
  for (u64 at = 0; at < kBytes; at += 512) disk->submit(job(DiskJob::Kind::write, at, {{&bytes[at], 512}}));
  disk->go();
  close();
  EXPECT_EQ(outcome.done, static_cast<int>(kBytes / 512));
  EXPECT_EQ(file.bytes(), bytes);
}

TEST_P(DiskTest, ItStartsOverAfterAReset) {
  file.fill(std::vector<u8>(kBytes, 0));
  OPEN_OR_SKIP();
  close();
  for (auto& body : disk->threads()) threads.emplace_back(std::move(body));
  u8 byte[512] = {7};
  disk->submit(job(DiskJob::Kind::write, 512, {{byte, 512}}));
  disk->submit(range(DiskJob::Kind::write_zeroes, 0, 512));
  await(2);
  EXPECT_EQ(file.bytes()[512], 7);
}

// Random reads and writes of a snapshot against a copy in memory; the image stays as it was.
TEST(Snapshot, ReadsWhatWasWrittenAndLeavesTheImage) {
  File file;
  const std::vector<u8> before = pattern(kBytes + 512, 4);
  file.fill(before);
  auto opened = open_disk({.path = file.path, .serial = "", .snapshot = true});
  ASSERT_TRUE(opened);
  EXPECT_FALSE(opened->facts.read_only);
  std::vector<u8> model = before;
  std::mt19937_64 random{5};
  Outcome outcome;
  for (unsigned step = 0; step < 3000; step++) {
    Job job{outcome};
    job.offset = random() % (model.size() / 512) * 512;
    job.bytes = std::min<u64>((random() % 40 + 1) * 512, model.size() - job.offset);
    job.kind = static_cast<DiskJob::Kind>(random() % 5);
    std::vector<u8> data = pattern(job.bytes, step);
    if (job.kind < DiskJob::Kind::flush)
      job.data = {{data.data(), job.bytes / 2}, {data.data() + job.bytes / 2, job.bytes - job.bytes / 2}};
    ASSERT_EQ(opened->image->perform(job), 0);
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(job.offset);
    if (job.kind == DiskJob::Kind::read)
      ASSERT_TRUE(std::equal(data.begin(), data.end(), at)) << "step " << step;
    else if (job.kind == DiskJob::Kind::write)
      std::copy(data.begin(), data.end(), at);
    else if (job.kind == DiskJob::Kind::write_zeroes)
      std::fill_n(at, job.bytes, u8{0});
  }
  EXPECT_EQ(file.bytes(), before);
}

TEST(OpenDisk, OneWriterOrAnyNumberOfReaders) {
  File file;
  file.fill(std::vector<u8>(4096, 0));
  const auto open = [&](bool reads) { return open_disk({.path = file.path, .serial = "", .read_only = reads}); };
  {
    const auto writer = open(false);
    ASSERT_TRUE(writer);
    EXPECT_THAT(open(false).error(), HasSubstr("in use by another VM"));
    EXPECT_FALSE(open(true));
  }
  const auto reader = open(true);
  EXPECT_TRUE(open(true));
  EXPECT_FALSE(open(false));
}

TEST(OpenDisk, WhatCannotBeIsNamedWithItsRemedy) {
  const auto wrong = [](const machine::DiskConfig& config) {
    const auto disk = open_disk(config);
    return disk ? std::string{} : disk.error();
  };
  EXPECT_THAT(wrong({.path = "/nowhere", .serial = ""}), HasSubstr("--disk /nowhere: No such file"));
  EXPECT_THAT(wrong({.path = "/tmp", .serial = "", .read_only = true}), HasSubstr("neither a file nor a block device"));
  File file;
  file.fill(std::vector<u8>(511, 0));
  EXPECT_THAT(wrong({.path = file.path, .serial = ""}), HasSubstr("smaller than a sector"));
  file.fill({'Q', 'F', 'I', 0xfb});
  EXPECT_THAT(wrong({.path = file.path, .serial = ""}), HasSubstr("looks like qcow2"));
  std::vector<u8> raw(1024, 0);
  std::copy_n("QFI\xfb", 4, raw.begin());
  file.fill(raw);
  EXPECT_THAT(wrong({.path = file.path, .serial = "", .format_given = true}), "");
}

}  // namespace
}  // namespace trapline::monitor
