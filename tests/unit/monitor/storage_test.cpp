// Disks over files: by io_uring, by threads, at once and as qcow2 by a server, with the same outcome; snapshots; what
// cannot be opened.
#include "monitor/helper_process.h"
#include "monitor/storage/file_disk.h"
#include "monitor/storage/qcow2.h"
#include "wording/vm_error.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
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

enum class How { ring, pool, at_once, qcow2, qcow2_at_once };
void PrintTo(How how, std::ostream* out) {
  constexpr const char* kNames[] = {"ring", "pool", "at_once", "qcow2", "qcow2_at_once"};
  *out << kNames[static_cast<int>(how)];
}
bool is_qcow2(How how) { return how == How::qcow2 || how == How::qcow2_at_once; }

std::unique_ptr<FileDisk> make(How how, OpenDisk disk, FileDisk::Complain complain) {
  switch (how) {
    case How::qcow2:
      return make_nbd_disk(std::move(disk), DiskMode::asynchronous, std::move(complain));
    case How::qcow2_at_once:
      return make_nbd_disk(std::move(disk), DiskMode::at_once, std::move(complain));
    case How::ring:
      return make_ring_disk(disk);
    case How::pool:
      return make_pool_disk(std::move(disk));
    default:
      return make_inline_disk(std::move(disk));
  }
}

void shell(const std::string& line) { EXPECT_EQ(std::system(line.c_str()), 0) << line; }  // NOLINT(cert-env33-c)

struct DiskTest : testing::TestWithParam<How>, Disk::Listener {
  File file;
  Outcome outcome;
  std::vector<std::string> complaints;
  pid_t server = -1;
  std::unique_ptr<FileDisk> disk;
  std::vector<std::thread> threads;
  void some_done() override { outcome.batches++; }

  void SetUp() override {
    if (is_qcow2(GetParam()) && !find_program("qemu-nbd")) GTEST_SKIP() << "qemu-nbd is not installed (qemu-utils)";
  }
  void fill(const std::vector<u8>& bytes) const {
    file.fill(bytes);
    if (!is_qcow2(GetParam())) return;
    shell("qemu-img convert -f raw -O qcow2 " + file.path + " " + file.path + ".new");
    shell("mv " + file.path + ".new " + file.path);
  }
  // As the host finds it: closed, where it is not raw.
  std::vector<u8> bytes() {
    if (!is_qcow2(GetParam())) return file.bytes();
    close();
    disk.reset();
    shell("qemu-img convert -f qcow2 -O raw " + file.path + " " + file.path + ".new");
    shell("mv " + file.path + ".new " + file.path);
    return file.bytes();
  }
  bool open(machine::DiskConfig config = {}) {
    config.path = file.path;
    if (is_qcow2(GetParam())) config.format = machine::DiskFormat::qcow2;
    auto opened = open_disk(config);
    EXPECT_TRUE(opened) << wording::line(opened.error());
    if (opened && opened->server) server = opened->server->process.pid();
    disk = make(GetParam(), std::move(*opened), [this](const std::string& line) { complaints.push_back(line); });
    if (!disk) return false;
    disk->attach(*this);
    start();
    return true;
  }
  void start() {
    if (GetParam() != How::qcow2_at_once)
      for (auto& body : disk->threads()) threads.emplace_back(std::move(body));
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

INSTANTIATE_TEST_SUITE_P(Ways, DiskTest,
                         testing::Values(How::ring, How::pool, How::at_once, How::qcow2, How::qcow2_at_once),
                         testing::PrintToStringParamName());

TEST_P(DiskTest, WhatIsWrittenIsReadAgainAndIsInTheFile) {
  fill(std::vector<u8>(kBytes, 0));
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
  EXPECT_EQ(bytes(), expected);
}

TEST_P(DiskTest, ZeroesAndDiscards) {
  std::vector<u8> expected = pattern(kBytes, 2);
  fill(expected);
  OPEN_OR_SKIP({.path = "", .serial = "", .discard = true});
  disk->submit(range(DiskJob::Kind::write_zeroes, 1000, 70000));
  auto unmapped = range(DiskJob::Kind::write_zeroes, 128 * KiB, 8192);
  unmapped->unmap = true;
  disk->submit(std::move(unmapped));
  disk->submit(range(DiskJob::Kind::discard, 200 * KiB, 4096));
  disk->submit(range(DiskJob::Kind::write_zeroes, 0, 0));
  await(4);
  EXPECT_EQ(outcome.errors, 0);
  const std::vector<u8> now = bytes();
  ASSERT_EQ(now.size(), kBytes);
  std::fill_n(expected.begin() + 1000, 70000, u8{0});
  std::fill_n(expected.begin() + 128 * KiB, 8192, u8{0});
  std::copy_n(now.begin() + 200 * KiB, 4096, expected.begin() + 200 * KiB);  // as it likes
  EXPECT_EQ(now, expected);
}

TEST_P(DiskTest, AnImageThatWasCutShortIsAnError) {
  if (is_qcow2(GetParam())) GTEST_SKIP() << "its length is its own";
  fill(std::vector<u8>(kBytes, 1));
  OPEN_OR_SKIP();
  ASSERT_EQ(::truncate(file.path.c_str(), 4096), 0);
  std::vector<u8> data(8192);
  disk->submit(job(DiskJob::Kind::read, 0, {{data.data(), 8192}}));
  disk->submit(job(DiskJob::Kind::read, 65536, {{data.data(), 512}}));
  await(2);
  EXPECT_EQ(outcome.errors, 2);
}

TEST_P(DiskTest, ItEndsWithWhatWasSubmitted) {
  fill(std::vector<u8>(kBytes, 0));
  OPEN_OR_SKIP();
  std::vector<u8> data = pattern(kBytes, 3);
  for (u64 at = 0; at < kBytes; at += 512) disk->submit(job(DiskJob::Kind::write, at, {{&data[at], 512}}));
  disk->go();
  close();
  EXPECT_EQ(outcome.done, static_cast<int>(kBytes / 512));
  EXPECT_EQ(bytes(), data);
}

TEST_P(DiskTest, ItStartsOverAfterAReset) {
  fill(std::vector<u8>(kBytes, 0));
  OPEN_OR_SKIP();
  close();
  start();
  u8 byte[512] = {7};
  disk->submit(job(DiskJob::Kind::write, 512, {{byte, 512}}));
  disk->submit(range(DiskJob::Kind::write_zeroes, 0, 512));
  await(2);
  EXPECT_EQ(bytes()[512], 7);
}

// A server that is killed: errors, one line, and an end.
TEST_P(DiskTest, AServerThatIsGoneIsAnErrorAndOneLine) {
  if (!is_qcow2(GetParam())) GTEST_SKIP() << "nobody serves it";
  fill(std::vector<u8>(kBytes, 1));
  OPEN_OR_SKIP();
  std::vector<u8> data(4096);
  disk->submit(job(DiskJob::Kind::read, 0, {{data.data(), 4096}}));
  await(1);
  EXPECT_EQ(outcome.errors, 0);
  ASSERT_EQ(::kill(server, SIGKILL), 0);
  for (int i = 0; i < 20; i++) disk->submit(job(DiskJob::Kind::write, 0, {{data.data(), 4096}}));
  disk->submit(job(DiskJob::Kind::flush, 0, {}));
  await(22);
  EXPECT_EQ(outcome.errors, 21);
  close();
  ASSERT_EQ(complaints.size(), 1u);
  EXPECT_THAT(complaints[0], HasSubstr("it has ended: the guest gets I/O errors from now on"));
}

TEST_P(DiskTest, AServerThatHangsDoesNotHoldUpTheEnd) {
  if (GetParam() != How::qcow2) GTEST_SKIP() << "nobody serves it, or one who waits";
  fill(std::vector<u8>(kBytes, 1));
  OPEN_OR_SKIP();
  ASSERT_EQ(::kill(server, SIGSTOP), 0);
  disk->submit(job(DiskJob::Kind::flush, 0, {}));
  close();
  EXPECT_EQ(outcome.errors, 1);
  ::kill(server, SIGKILL);
}

// Larger than a request of the protocol may be, and in pieces.
TEST_P(DiskTest, AJobMayBeLarge) {
  constexpr u64 kLarge = 40 * MiB;
  fill(std::vector<u8>(kLarge, 0));
  OPEN_OR_SKIP();
  const std::vector<u8> expected = pattern(kLarge, 9);
  std::vector<u8> data = expected, read(kLarge);
  disk->submit(job(DiskJob::Kind::write, 0, {{data.data(), 5 * MiB}, {&data[5 * MiB], kLarge - 5 * MiB}}));
  await(1);
  disk->submit(job(DiskJob::Kind::read, 0, {{read.data(), 3 * MiB}, {&read[3 * MiB], kLarge - 3 * MiB}}));
  await(2);
  EXPECT_EQ(outcome.errors, 0);
  EXPECT_EQ(read, expected);
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
    EXPECT_THAT(wording::line(open(false).error()), HasSubstr("in use by another VM"));
    EXPECT_FALSE(open(true));
  }
  const auto reader = open(true);
  EXPECT_TRUE(open(true));
  EXPECT_FALSE(open(false));
}

TEST(OpenDisk, WhatCannotBeIsNamedWithItsRemedy) {
  const auto wrong = [](const machine::DiskConfig& config) {
    const auto disk = open_disk(config);
    return disk ? std::string{} : wording::line(disk.error());
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
  EXPECT_THAT(wrong({.path = file.path, .serial = "", .format = machine::DiskFormat::raw}), "");
}

struct Qcow2 : testing::Test {
  std::string folder = "/tmp/trapline-qcow2-XXXXXX";
  void SetUp() override {
    if (!find_program("qemu-nbd")) GTEST_SKIP() << "qemu-nbd is not installed (qemu-utils)";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  }
  ~Qcow2() override { shell("rm -rf " + folder); }
  std::string in(const std::string& name) const { return folder + "/" + name; }
  void make(const std::string& arguments) const { shell("cd " + folder + " && qemu-img create -q " + arguments); }
  std::string wrong(machine::DiskConfig config) const {
    config.path = in(config.path);
    const auto disk = open_disk(config);
    return disk ? std::string{} : wording::line(disk.error());
  }
};

// A guest can make its raw disk look like anything. Its name it cannot change.
TEST_F(Qcow2, TheFormatIsThatOfBytesAndNameOrSaid) {
  make("-f qcow2 a.qcow2 1M && cp a.qcow2 a.img && truncate -s 1M b.qcow2");
  EXPECT_EQ(wrong({.path = "a.qcow2", .serial = ""}), "");
  EXPECT_EQ(wrong({.path = "a.img", .serial = "", .format = machine::DiskFormat::qcow2}), "");
  EXPECT_EQ(wrong({.path = "a.img", .serial = "", .format = machine::DiskFormat::raw}), "");
  EXPECT_THAT(wrong({.path = "a.img", .serial = ""}), HasSubstr("looks like qcow2: say format=qcow2, or format=raw"));
  EXPECT_THAT(wrong({.path = "b.qcow2", .serial = ""}), HasSubstr("named like qcow2, and is not: say format=raw"));
  EXPECT_THAT(wrong({.path = "b.qcow2", .serial = "", .format = machine::DiskFormat::qcow2}), HasSubstr("not qcow2"));
}

TEST_F(Qcow2, WhatItLiesOnIsReadIfItsFormatIsSaid) {
  make("-f qcow2 base.qcow2 1M && qemu-io -c 'write -P 7 64k 4k' base.qcow2 >/dev/null");
  make("-f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
  auto disk = open_disk({.path = in("top.qcow2"), .serial = "", .read_only = true});
  ASSERT_TRUE(disk) << wording::line(disk.error());
  auto at_once = make_nbd_disk(std::move(*disk), DiskMode::at_once, {});
  Outcome outcome;
  std::vector<u8> data(4096);
  auto job = std::make_unique<Job>(outcome);
  job->kind = DiskJob::Kind::read, job->offset = 65536, job->bytes = 4096, job->data = {{data.data(), 4096}};
  at_once->submit(std::move(job));
  EXPECT_EQ(data, std::vector<u8>(4096, 7));
  EXPECT_EQ(*backing_files(in("top.qcow2")), (std::vector<std::string>{in("base.qcow2")}));
  // As old tools made them: the format of the image below would be guessed.
  const std::string extension{"\xe2\x79\x2a\xca", 4};
  std::fstream file{in("top.qcow2"), std::ios::in | std::ios::out | std::ios::binary};
  std::string header(4096, 0);
  file.read(header.data(), 4096);
  file.seekp(static_cast<std::streamoff>(header.find(extension)));
  file.write("\0\0\0\0", 4);
  file.close();
  EXPECT_THAT(wrong({.path = "top.qcow2", .serial = ""}), HasSubstr("does not say the format of base.qcow2"));
}

TEST_F(Qcow2, OneWriterAtATime) {
  make("-f qcow2 a.qcow2 1M");
  auto writer = open_disk({.path = in("a.qcow2"), .serial = ""});
  ASSERT_TRUE(writer) << wording::line(writer.error());
  EXPECT_THAT(wrong({.path = "a.qcow2", .serial = ""}), HasSubstr("in use by another VM: give readonly or snapshot"));
}

// What an image says of other files leads nowhere, but for those below it; a server without walls would show it.
TEST_F(Qcow2, AnImageReachesNoOtherFile) {
  if (!FileRules::create("/bin/cat", {})->any()) GTEST_SKIP() << "this kernel has no Landlock";
  make("-f raw secret.raw 1M && qemu-img create -q -f qcow2 -o data_file=" + in("secret.raw") +
       ",data_file_raw=on a.qcow2 1M");
  shell("qemu-io -r -c 'read 0 4k' " + in("a.qcow2") + " >/dev/null");
  EXPECT_THAT(wrong({.path = "a.qcow2", .serial = ""}), HasSubstr("Permission denied"));
  EXPECT_THAT(wrong({.path = "a.qcow2", .serial = "", .read_only = true}), HasSubstr("Permission denied"));
  EXPECT_THAT(wrong({.path = "a.qcow2", .serial = "", .snapshot = true}), HasSubstr("Permission denied"));
}

TEST(FileRulesOfHelpers, AProgramReadsAndWritesWhatItIsGiven) {
  const std::string folder = "/tmp/trapline-rules-" + std::to_string(::getpid());
  shell("mkdir " + folder + " && cd " + folder + " && echo 1 >given && echo 2 >other && echo 3 >written");
  const auto tries = [&](const std::string& command) {
    const auto rules = FileRules::create("/bin/sh", {.read = {folder + "/given"}, .written = {folder + "/written"}});
    EXPECT_TRUE(rules);
    HelperStart start{.program = "/bin/sh", .arguments = {"-c", "cd " + folder + " && " + command}, .files = &*rules};
    auto process = start_helper(start);
    EXPECT_TRUE(process);
    int status = -1;
    ::waitpid(process->pid(), &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  EXPECT_TRUE(tries("read line <given"));
  EXPECT_TRUE(tries("read line <written && echo 4 >written"));
  if (FileRules::create("/bin/sh", {})->any()) {
    EXPECT_FALSE(tries("read line <other"));
    EXPECT_FALSE(tries("read line </etc/passwd"));
    EXPECT_FALSE(tries("echo 4 >given"));
    EXPECT_FALSE(tries("echo 4 >new"));
    EXPECT_FALSE(tries("rm given"));
  }
  shell("rm -rf " + folder);
}

TEST_F(Qcow2, ADamagedOneNamesTheRemedy) {
  make("-f qcow2 a.qcow2 1M && printf garbage | dd of=a.qcow2 bs=1 seek=48 conv=notrunc 2>/dev/null");
  EXPECT_THAT(wrong({.path = "a.qcow2", .serial = ""}), HasSubstr("qemu-img check"));
}

}  // namespace
}  // namespace trapline::monitor
