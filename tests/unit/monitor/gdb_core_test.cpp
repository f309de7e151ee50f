// The debugger's mailbox between a client's thread and the vCPUs of one core after the other, which keep its protocol.
// Under ThreadSanitizer no word of it is excused.
#include "monitor/gdb_core.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include "channel/futex.h"

namespace trapline::monitor::gdb {
namespace {

using channel::DebugCommand;
using channel::DebugMailbox;
using channel::DebugRegisters;

constexpr u32 kVcpus = 2;

// A core whose registers are what the client wrote last; before that PC is a vCPU's number and RIP the core's.
class HonestCore {
 public:
  HonestCore(DebugMailbox& mailbox, u64 number) : m_{mailbox}, number_{number} {
    for (u32 i = 0; i < kVcpus; i++) threads_.emplace_back([this, i] { run(i); });
  }
  ~HonestCore() {
    ended_ = true;
    m_.epoch.fetch_add(1);
    channel::futex_wake(m_.epoch, 64);
    for (auto& t : threads_) t.join();
  }
  HonestCore(const HonestCore&) = delete;

 private:
  void run(u32 index) {
    DebugRegisters registers;
    registers.pc = Gva{index}, registers.rip = number_;
    while (!ended_) {
      if (m_.stop.load() != 0)
        pause(index, registers);
      else
        std::this_thread::yield();
    }
  }
  void pause(u32 index, DebugRegisters& registers) {
    u32 word = m_.epoch.load();
    m_.paused.fetch_or(u64{1} << index);
    tell();
    do {
      const u32 before = word;
      while ((word = m_.epoch.load()) == before && !ended_) channel::futex_wait(m_.epoch, before);
      if (ended_) return;
      if (channel::command_of(word) != DebugCommand::resume && channel::vcpu_of(word) == index) obey(word, registers);
    } while (m_.go[index].exchange(0) == 0);
  }
  void obey(u32 word, DebugRegisters& registers) {
    m_.result = 1;
    if (channel::command_of(word) == DebugCommand::read_registers)
      std::memcpy(m_.data, &registers, sizeof registers);
    else if (channel::command_of(word) == DebugCommand::write_registers)
      std::memcpy(&registers, m_.data, sizeof registers);
    else if (channel::command_of(word) == DebugCommand::load_stops)
      m_.result = m_.stop_count;
    m_.done.store(word);
    tell();
  }
  void tell() {
    m_.event.fetch_add(1);
    channel::futex_wake(m_.event, 64);
  }

  DebugMailbox& m_;
  const u64 number_;
  std::atomic<bool> ended_{false};
  std::vector<std::thread> threads_;
};

// What a client does with one pause. False: there was none, or the core ended meanwhile.
bool inspect(CoreTarget& target, u64 mark) {
  if (!target.paused()) return false;
  target.take_stop();
  for (u32 i = 0; i < target.vcpus(); i++) {
    DebugRegisters registers;
    if (!target.read_registers(i, registers)) return false;
    registers.pc = Gva{mark + i};
    if (!target.write_registers(i, registers)) return false;
    DebugRegisters now;
    if (!target.read_registers(i, now)) return false;
    const bool next_core = now.rip != registers.rip;  // it came between the two commands
    EXPECT_EQ(now.pc, Gva{next_core ? i : mark + i});
    if (next_core) return false;
  }
  target.set_stops({{Gva{0x1000 + mark}, 1, channel::StopKind::execute}});
  target.resume(3, 0, false);
  target.interrupt();
  return true;
}

TEST(CoreTarget, AClientIsAnsweredWhileCoresComeAndGo) {
  std::atomic<int> pauses{0}, inspected{0};
  std::atomic<bool> over{false};
  CoreTarget target{{.paused = [&] { pauses++; },
                     .nudge = [] {},
                     .end = [] {},
                     .failed = [](ExitCode, const std::string& text) { ADD_FAILURE() << text; }}};
  std::thread client{[&] {
    int seen = 0;
    for (u64 mark = 100; !over; mark += 100) {
      EXPECT_GE(target.vcpus(), 1u);
      // As the server does: it acts when it is told, so a pause that goes untold would be waited for without end.
      for (; pauses == seen && !over;) std::this_thread::yield();
      seen = pauses;
      if (inspect(target, mark)) inspected++;
    }
  }};
  for (u64 life = 1; life <= 5; life++) {
    auto channel = channel::Channel::create(kVcpus);
    ASSERT_TRUE(channel);
    target.attach(*channel, true);
    const int before = inspected;
    {
      const HonestCore core{channel->vm().debug, life};
      while (inspected < before + 20) std::this_thread::yield();
      target.detach();
    }
  }
  over = true;
  client.join();
}

}  // namespace
}  // namespace trapline::monitor::gdb
