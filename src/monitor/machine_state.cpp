#include "monitor/machine_state.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/read_once.h"
#include "base/trace.h"
#include "channel/futex.h"
#include "channel/spin.h"
#include "channel/trace_sink.h"
#include "monitor/service.h"

namespace trapline::monitor {

using channel::Turn;

namespace {
constexpr const char* kHelp =
    "\r\nCtrl-A H  this help\r\nCtrl-A X  quit\r\nCtrl-A Ctrl-A  send Ctrl-A to the guest\r\n";
}

MachineState::MachineState(const machine::Config& config, int output_fd, bool terminal, EndEvent& end_event,
                           const Event& hurry, std::vector<OpenDisk> disks, std::vector<OpenNetwork> networks,
                           const Attachments& attachments, BoardParts parts)
    : deterministic{config.clock == machine::ClockChoice::instructions},
      output{output_fd, hurry},
      end{end_event},
      virtio{config, std::move(disks), std::move(networks), *this, attachments},
      board{std::move(parts)},
      display{config.display()},
      uses_ram{virtio.any() || !config.firmware.empty() || !config.cdrom.empty()},
      chipset{machine::ChipsetParts{config, time, held, *this, *this, virtio.devices(),
                                    uses_ram ? &virtio.dma() : nullptr, board.vga_bios, board.cd.get()}},
      input{terminal,
            deterministic,
            {.arrived =
                 [this] {
                   if (deterministic) return;  // taken at the guest's next request
                   std::lock_guard guard{lock};
                   input.feed(chipset);
                   publish();
                 },
             .quit = [this] { finish(End::quit); },
             .help = [&attachments] { attachments.report(kHelp); },
             .failed = [this](ExitCode code, const std::string& text) { fail(code, text); }}} {}

void MachineState::attach(channel::Channel next, DeviceMemory memory) {
  std::lock_guard guard{lock};
  {
    std::lock_guard swapping{channel_mutex_};
    channel = std::move(next);
  }
  device_memory = std::move(memory);
  posted = {};
  interrupts.attach(channel);
  chipset.reset();
  publish();
  closing = false;
  armed_ns = devices::kNever;
}

std::vector<int> MachineState::service_calls() const {
  std::vector<int> all = virtio.service_calls();
  if (board.cd)
    for (const int call : CdFile::calls()) all.push_back(call);
  return all;
}

u32 MachineState::take_posted() {
  if (channel.vcpus() == 0) return 0;
  return posted.take(channel.vm().serial, [this](u8 byte) { chipset.port_write(devices::map::com1, 1, byte); });
}

// Under --clock instructions input is taken when the guest asks, so it has to ask.
void MachineState::publish() {
  if (!device_memory.page()) return;
  chipset.publish(*device_memory.page(), !deterministic);
  held.release();
}

void MachineState::stop_core() {
  std::lock_guard guard{channel_mutex_};
  if (channel.vcpus() == 0) return;
  channel.vm().stop.store(1, std::memory_order_release);
  for (u32 i = 0; i < channel.vcpus(); i++) channel::kick(channel.vcpu(i), channel::attention::kick);
  channel.vm().debug.epoch.fetch_add(1);  // those that a debugger has paused
  channel::futex_wake(channel.vm().debug.epoch, 64);
}

void MachineState::finish(End end_reason, u32 value, std::string text) {
  end.post(end_reason, value, std::move(text));
  stop_core();
}

namespace {

class Server {
 public:
  Server(MachineState& machine, u32 index)
      : m_{machine},
        pages_{machine.channel.vcpu(index)},
        patience_{channel::Spin::longest_for(machine.channel.vcpus())} {}

  void run() {
    while (await_request()) {
      const channel::Request request = pages_.request;  // the one copy that is looked at
      answer(handle(request));
      if (m_.output.due()) m_.output.flush();
      if (m_.output.failed()) m_.finish(End::console_lost);
    }
  }

 private:
  u32 turn() const { return pages_.turn.load(std::memory_order_acquire); }
  static bool comes(u32 turn) {
    return turn == static_cast<u32>(Turn::requested) || turn == static_cast<u32>(Turn::closed);
  }

  // False: the channel has closed.
  bool await_request() {
    const auto came = [&] { return comes(turn()); };
    if (think_ < kSoon ? !patience_.wait(came) : !came()) sleep();
    if (turn() == static_cast<u32>(Turn::closed)) return false;
    // What the guest did in between, without the time it took anybody to wake up. A lying core only costs polling.
    think_ = think_ - think_ / 8 + std::min(read_once(pages_.request.think), 4 * kSoon) / 8;
    return true;
  }

  void sleep() {
    if (!m_.output.empty()) m_.output.flush();
    pages_.server_sleeps.store(1);
    for (u32 t; !comes(t = pages_.turn.load());) channel::futex_wait(pages_.turn, t);
    pages_.server_sleeps.store(0, std::memory_order_relaxed);
  }

  channel::Reply handle(const channel::Request& r) {
    if (m_.deterministic && r.kind == static_cast<u32>(channel::RequestKind::idle)) m_.input.wait();
    channel::Reply reply;
    std::lock_guard guard{m_.lock};
    m_.take_posted();
    if (m_.deterministic) {
      m_.time.advance(r.now_ns);
      if (m_.chipset.deadline_ns() <= m_.time.now_ns()) m_.chipset.tick();
    }
    if (!serve(m_.chipset, r, pages_.bulk, &reply.value))
      TRACE(channel, "refused: kind {} port {:#x} size {} count {}", r.kind, r.port, r.size, r.count);
    m_.input.feed(m_.chipset);
    m_.publish();
    reply.deadline_ns = m_.chipset.deadline_ns();
    if (!m_.deterministic && reply.deadline_ns < m_.armed_ns) m_.timer.notify_one();
    return reply;
  }

  void answer(const channel::Reply& reply) {
    if (m_.deterministic && trace::mask) channel::flush_trace();
    pages_.reply = reply;
    u32 expected = static_cast<u32>(Turn::requested);
    pages_.turn.compare_exchange_strong(expected, static_cast<u32>(Turn::replied));  // not over `closed`
    if (pages_.client_sleeps.load()) channel::futex_wake(pages_.turn);
  }

  MachineState& m_;
  channel::VcpuPages& pages_;
  static constexpr u64 kSoon = 150'000;  // ticks, some 50 us: a guest in the middle of a conversation with a device
  channel::Patience patience_;
  u64 think_ = 4 * kSoon;
};

}  // namespace

void serve_vcpu(MachineState& machine, u32 index) {
  trace::set_vcpu(static_cast<int>(index));
  Server{machine, index}.run();
}

// The first byte wakes it, and goes out at once; while more come it looks again every quarter of a millisecond, so that
// a guest that writes much wakes it rarely. One that waits to be told that its bytes are gone wakes it each time.
void run_console(MachineState& m) {
  constexpr u64 kNapNs = 250'000;
  channel::SerialRing& ring = m.channel.vm().serial;
  std::atomic<u32> nobody{0};  // wakes it from a nap
  while (!m.closing) {
    bool some, waiting, waited_for;
    {
      std::lock_guard guard{m.lock};
      some = m.take_posted() != 0;
      if (some) m.publish();
      waited_for = m.chipset.transmitter_interrupts();
    }
    if (!m.output.empty()) m.output.flush();
    if (m.output.failed()) m.finish(End::console_lost);
    if (some && !waited_for) {
      channel::futex_wait(nobody, 0, kNapNs);
      continue;
    }
    ring.sleeps.store(1);  // seq_cst: before the second look; pairs with SerialRing::post()
    {
      std::lock_guard guard{m.lock};
      waiting = !m.posted.empty(ring);
    }
    if (!waiting && !m.closing) channel::futex_wait(ring.sleeps, 1);
    ring.sleeps.store(0);
  }
}

void run_screen(MachineState& m) {
  constexpr std::chrono::milliseconds kFrame{33};
  const auto show = [&m](const std::string& text) {
    for (const char c : text) m.output.put(static_cast<u8>(c));
  };
  std::unique_lock guard{m.lock};
  while (!m.closing) {
    const auto memory = m.virtio.dma().bytes(Gpa{kTextScreenStart}, kVideoHoleEnd - kTextScreenStart);
    const auto mode = m.chipset.text_mode();
    if (memory && mode) show(m.screen.update(*mode, *memory));
    guard.unlock();
    if (!m.output.empty()) m.output.flush();
    if (m.output.failed()) m.finish(End::console_lost);
    guard.lock();
    m.frames.wait_for(guard, kFrame, [&m] { return m.closing.load(); });
  }
  show(m.screen.leave());
}

void run_timer(MachineState& m) {
  std::unique_lock guard{m.lock};
  while (!m.closing) {
    const u64 now = m.time.now_ns(), deadline = m.chipset.deadline_ns();
    if (deadline <= now) {
      m.chipset.tick();
      m.publish();
      // A device that stays overdue is not asked without pause.
      if (m.chipset.deadline_ns() <= now) m.timer.wait_for(guard, std::chrono::microseconds{100});
      continue;
    }
    m.armed_ns = deadline;
    const u64 longest = 10'000'000'000;
    m.timer.wait_for(guard, std::chrono::nanoseconds{std::min(deadline - now, longest)});
  }
}

}  // namespace trapline::monitor
