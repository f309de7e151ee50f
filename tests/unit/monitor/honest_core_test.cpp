// A core that keeps to the channel's protocol, all vCPUs at once, against the monitor's own threads: each gets the
// answers to its own requests, and the console what was posted, in order. Under ThreadSanitizer no word is excused here.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "service_threads.h"

namespace trapline::monitor {
namespace {

using channel::RequestKind;

constexpr int kRounds = 300;

class HonestVcpu {
 public:
  explicit HonestVcpu(channel::VcpuPages& pages) : pages_{pages} {}

  u64 call(RequestKind kind, u16 port, u32 count, u64 value) {
    channel::Request r;
    r.kind = static_cast<u32>(kind), r.port = port, r.size = 1, r.count = count, r.value = value;
    pages_.request = r;
    pages_.turn.store(static_cast<u32>(channel::Turn::requested));
    if (pages_.server_sleeps.load()) channel::futex_wake(pages_.turn);
    pages_.client_sleeps.store(1);
    while (pages_.turn.load() != static_cast<u32>(channel::Turn::replied))
      channel::futex_wait(pages_.turn, static_cast<u32>(channel::Turn::requested));
    pages_.client_sleeps.store(0);
    return pages_.reply.value;
  }
  // Writes a register that is this vCPU's alone and reads it back, by value and through the bulk page.
  void use(u16 port) {
    for (int i = 0; i < kRounds; i++) {
      const u8 value = static_cast<u8>(i * 7 + port);
      call(RequestKind::port_write, port, 0, value);
      ASSERT_EQ(call(RequestKind::port_read, port, 0, 0) & 0xff, value);
      pages_.bulk[0] = 0, pages_.bulk[1] = static_cast<u8>(~value);
      call(RequestKind::port_write_many, port, 2, 0);
      call(RequestKind::port_read_many, port, 2, 0);
      ASSERT_EQ(pages_.bulk[0], static_cast<u8>(~value));
      ASSERT_EQ(pages_.bulk[1], static_cast<u8>(~value));
    }
  }

 private:
  channel::VcpuPages& pages_;
};

std::string all_of(int fd) {
  std::string text(static_cast<std::size_t>(::lseek(fd, 0, SEEK_END)), '\0');
  EXPECT_EQ(::pread(fd, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return text;
}

TEST(HonestCore, EachVcpuGetsItsOwnAnswersAndTheConsoleItsBytes) {
  constexpr u16 kRegisters[] = {0x21, 0xa1, 0x3ff};  // the masks of both 8259s, the scratch register of COM1
  machine::Config config;
  config.memory = 64 * MiB;
  config.cpus = std::size(kRegisters);
  const Fd out{::memfd_create("console", MFD_CLOEXEC)};
  EndEvent end;
  Event hurry;
  MachineState m{config, out.get(), false, end, hurry};
  m.time.start(1'000'000);
  auto channel = channel::Channel::create(config.cpus);
  auto devices = DeviceMemory::create("devices");
  ASSERT_TRUE(channel && devices);
  m.attach(std::move(*channel), std::move(*devices));
  std::string sent;
  {
    ServiceThreads service{m};
    std::vector<std::thread> core;
    for (u32 i = 0; i < config.cpus; i++)
      core.emplace_back([&m, i, port = kRegisters[i]] { HonestVcpu{m.channel.vcpu(i)}.use(port); });
    for (int i = 0; i < 20'000; i++) {  // more than the ring holds
      const char byte = static_cast<char>('a' + i % 26);
      while (!m.channel.vm().serial.post(static_cast<u8>(byte))) std::this_thread::yield();
      sent.push_back(byte);
    }
    while (!m.channel.vm().serial.all_taken()) std::this_thread::yield();
    for (auto& t : core) t.join();
  }
  m.output.flush();
  EXPECT_EQ(all_of(out.get()), sent);
}

}  // namespace
}  // namespace trapline::monitor
