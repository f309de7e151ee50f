// A core that has been taken over, with the whole channel in its hands: all its vCPUs write what they like, at once and
// while the monitor's threads work on it. The monitor must neither crash nor hang, and its service must end.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "base/benign_race.h"
#include "channel/futex.h"
#include "monitor/conclude.h"
#include "monitor/gdb_core.h"
#include "monitor/stats.h"
#include "service_threads.h"

namespace trapline::monitor {
namespace {

constexpr u32 kVcpus = 3;
constexpr int kRequests = 1000;  // of each vCPU, in each life

using channel::RequestKind;

class HostileVcpu {
 public:
  HostileVcpu(channel::Channel& channel, u32 index, u64 seed)
      : channel_{channel}, pages_{channel.vcpu(index)}, rng_{seed} {}

  void run() {
    for (int i = 0; i < kRequests; i++) {
      pages_.request = request();
      // Its last wish is to wait for input, which never comes: that must not keep the service from ending.
      if (i + 1 == kRequests) pages_.request.kind = static_cast<u32>(RequestKind::idle);
      scribble();
      pages_.turn.store(
          static_cast<u32>(rng_() % 16 ? channel::Turn::requested : static_cast<channel::Turn>(rng_() % 3)));
      channel::futex_wake(pages_.turn);
      // Mostly it waits for the answer, as honest ones do; else it writes on while the monitor reads.
      if (rng_() % 4)
        for (int spin = 0; spin < 20 && pages_.turn.load() == static_cast<u32>(channel::Turn::requested); spin++)
          std::this_thread::yield();
    }
  }

 private:
  u64 some() { return rng_() >> (rng_() % 64); }

  channel::Request request() {
    static constexpr u16 kPorts[] = {0x20, 0x21,  0x40,  0x43,  0x60,  0x64,  0x70,  0x71,  0x92,
                                     0xf4, 0x3f8, 0x3f9, 0x510, 0x511, 0x604, 0xcf8, 0xcf9, 0xcfc};
    channel::Request r;
    r.kind = static_cast<u32>(rng_() % 32 ? rng_() % static_cast<u32>(RequestKind::idle) : some());
    r.count = static_cast<u32>(rng_() % 8 ? rng_() % 64 : some());
    r.port = static_cast<u16>(rng_() % 4 ? kPorts[rng_() % std::size(kPorts)] : rng_());
    r.size = static_cast<u16>(rng_() % 4 ? 1u << rng_() % 4 : rng_());
    r.address = Gpa{rng_() % 2 ? 0xfec00000 + rng_() % 0x1000 : some()};
    r.value = some(), r.now_ns = some(), r.think = some();
    return r;
  }

  // The rest of what both share.
  void scribble() {
    auto* bytes = reinterpret_cast<u8*>(&pages_.inbox);
    const auto* end = reinterpret_cast<u8*>(&pages_ + 1);
    bytes[rng_() % static_cast<u64>(end - bytes)] = static_cast<u8>(rng_());
    pages_.server_sleeps.store(static_cast<u32>(rng_() % 2));
    pages_.client_sleeps.store(static_cast<u32>(rng_() % 2));
    auto* page = reinterpret_cast<u8*>(&channel_.vm());
    page[rng_() % sizeof(channel::VmPage)] = static_cast<u8>(rng_());
  }

  channel::Channel& channel_;
  channel::VcpuPages& pages_;
  std::mt19937_64 rng_;
};

void live_and_end(MachineState& m, u64 seed) {
  auto channel = channel::Channel::create(kVcpus);
  ASSERT_TRUE(channel);
  // All of it: VmPage, launch parameters, and each vCPU's pages. The monitor copies once and checks its copy.
  declare_races_benign(&channel->vm(),
                       reinterpret_cast<u8*>(&channel->vcpu(kVcpus)) - reinterpret_cast<u8*>(&channel->vm()),
                       "a hostile core's writes");
  auto devices = DeviceMemory::create("devices");
  ASSERT_TRUE(devices);
  m.attach(std::move(*channel), std::move(*devices));
  m.input.let_go(false);
  ServiceThreads service{m};
  std::vector<std::thread> core;
  for (u32 i = 0; i < kVcpus; i++) core.emplace_back([&m, i, seed] { HostileVcpu{m.channel, i, seed + i}.run(); });
  for (auto& t : core) t.join();
}

TEST(HostileCore, NeitherCrashesNorHoldsUpTheMonitor) {
  for (const auto clock : {machine::ClockChoice::real, machine::ClockChoice::instructions}) {
    machine::Config config;
    config.memory = 64 * MiB;
    config.cpus = kVcpus;
    config.clock = clock;
    const Fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    EndEvent end;
    Event hurry;
    MachineState m{config, null.get(), false, end, hurry};
    if (!m.deterministic) m.time.start(1'000'000);
    for (u64 seed = 1; seed <= 3; seed++) {
      live_and_end(m, seed * 100);
      end.take_reset();
    }
    // Whatever it left as its last words becomes printable text and a documented code.
    const CoreProcess none;
    const Conclusion c = conclude({config, m, none, 0, [] { return Symbols{}; }});
    EXPECT_GE(c.code, 0);
    EXPECT_LE(c.code, 255);
    for (const char byte : c.text) EXPECT_TRUE(byte == '\n' || (byte >= ' ' && byte <= '~'));
    stats_text({m.channel.vcpu(0).stats}, 1.0);
  }
}

// How much it says to have read or written changes between the look and the use. Without read_once() it fails where the
// compiler reads twice: clang, and GCC without optimization.
TEST(HostileCore, TheDebuggersMailboxIsReadOnce) {
  auto channel = channel::Channel::create(2);
  ASSERT_TRUE(channel);
  channel::DebugMailbox& m = channel->vm().debug;
  declare_races_benign(&m, sizeof m, "a core that writes while it is read");
  gdb::CoreTarget target{
      {.paused = [] {}, .nudge = [] {}, .end = [] {}, .failed = [](ExitCode, const std::string&) {}}};
  target.attach(*channel, true);
  std::atomic<bool> over{false};
  std::thread core{[&] {
    m.paused.store(~u64{0});
    for (u32 turn = 0; !over; turn++) {
      for (int i = 0; i < 64; i++) *static_cast<volatile u32*>(&m.result) = (turn + static_cast<u32>(i)) % 2 ? ~0u : 0;
      m.done.store(m.epoch.load());
      m.event.fetch_add(1);
      channel::futex_wake(m.event, 64);
    }
  }};
  std::vector<u8> memory(300);
  for (int i = 0; i < 3000; i++) {
    ASSERT_LE(target.read_memory(0, Gva{0x1000}, memory), memory.size());
    ASSERT_LE(target.write_memory(0, Gva{0x1000}, memory), memory.size());
  }
  target.detach();
  over = true;
  core.join();
}

}  // namespace
}  // namespace trapline::monitor
