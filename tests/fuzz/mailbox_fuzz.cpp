// The debugger's mailbox with a hostile core on its other side, which answers whatever it likes while it is read.
#include <atomic>
#include <cstring>
#include <thread>

#include "base/invariant.h"
#include "channel/channel.h"
#include "channel/futex.h"
#include "monitor/gdb_core.h"

using namespace trapline;
using namespace trapline::monitor::gdb;

namespace {

// Writes the input over the mailbox, piece by piece, and says that every command is done.
void answer(channel::DebugMailbox& m, const u8* data, std::size_t size, const std::atomic<bool>& over) {
  for (std::size_t at = 0; !over; at = (at + 1) % size) {
    m.result = data[at] | static_cast<u32>(data[(at + 1) % size]) << 8 | static_cast<u32>(data[(at + 2) % size]) << 24;
    m.report = data[at] & 7, m.report_kind = data[at] >> 3, m.report_address = Gva{m.result};
    m.reporter.store(data[at] & 3);
    m.data[m.result % sizeof m.data] = data[at];
    m.paused.store(data[at] & 0x80 ? data[at] : ~u64{0});
    m.done.store(m.epoch.load());
    m.event.fetch_add(1);
    channel::futex_wake(m.event, 64);
    std::this_thread::yield();
  }
}

void use(CoreTarget& target, u8 what) {
  channel::DebugRegisters registers;
  u8 memory[300];
  switch (what & 7) {
    case 0:
      target.read_registers(what >> 3 & 3, registers);
      break;
    case 1:
      target.write_registers(what >> 3 & 3, registers);
      break;
    case 2:
      INVARIANT(target.read_memory(0, Gva{what}, memory) <= sizeof memory, "more than asked for");
      break;
    case 3:
      INVARIANT(target.write_memory(0, Gva{what}, memory) <= sizeof memory, "more than given");
      break;
    case 4:
      target.translate(what >> 3 & 3, Gva{what});
      break;
    case 5:
      target.set_stops(std::vector<channel::DebugStop>(what));
      target.resume(1, 2, what & 16);
      break;
    case 6:
      target.interrupt();
      break;
    default:
      if (const auto stop = target.take_stop()) INVARIANT(stop->vcpu < 2, "vcpu {}", stop->vcpu);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 8 || size > 200) return 0;
  auto channel = channel::Channel::create(2);
  if (!channel) return 0;
  CoreTarget target{{.paused = [] {}, .nudge = [] {}, .end = [] {}, .failed = [](ExitCode, const std::string&) {}}};
  target.attach(*channel, true);
  std::atomic<bool> over{false};
  std::thread core{[&] { answer(channel->vm().debug, data, size, over); }};
  for (std::size_t i = 0; i < std::min<std::size_t>(size, 24); i++) use(target, data[i]);
  target.detach();
  over = true;
  core.join();
  return 0;
}
