// The chipset and what surrounds it in the monitor. Lock order: `lock`, then whatever Output, Input, EndEvent and
// stop_core() lock inside.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "channel/channel.h"
#include "channel/launch.h"
#include "channel/shared_page.h"
#include "machine/chipset.h"
#include "monitor/end_event.h"
#include "monitor/guest_time.h"
#include "monitor/input.h"
#include "monitor/interrupts.h"
#include "monitor/output.h"
#include "monitor/storage/cd_image.h"
#include "monitor/text_screen.h"
#include "monitor/virtio_devices.h"

namespace trapline::monitor {

inline constexpr u64 kDeterministicEpoch =
    channel::kFixedWallNs / 1'000'000'000;  // --clock instructions: the RTC at power-on

using DeviceMemory = channel::SharedPage<devices::DevicePage>;

// What the board is fitted with; files have been read.
struct BoardParts {
  std::vector<u8> vga_bios;
  std::unique_ptr<CdFile> cd;
};

struct MachineState final : machine::PowerSink, machine::SerialBackend {
  // `end`, `hurry` and `attachments` outlive it. Throws HostRefused.
  MachineState(const machine::Config& config, int output_fd, bool terminal, EndEvent& end, const Event& hurry,
               std::vector<OpenDisk> disks = {}, std::vector<OpenNetwork> networks = {},
               const Attachments& attachments = kNoAttachments, BoardParts parts = {});

  const bool deterministic;
  std::mutex lock;  // around all use of chipset, time.advance() and interrupts
  GuestTime time =
      deterministic ? GuestTime::by_instructions(kDeterministicEpoch) : GuestTime{};  // before the devices, who ask it
  Interrupts interrupts;
  HeldInterrupts held{interrupts};
  Output output;
  EndEvent& end;
  VirtioDevices virtio;
  const BoardParts board;
  const bool display;   // the console is a screen, and COM1 goes nowhere
  const bool uses_ram;  // something in this process does
  machine::Chipset chipset;
  Input input;
  TextScreen screen;               // under `lock`
  std::condition_variable frames;  // closing
  std::condition_variable timer;   // the chipset's deadline moved, or closing
  u64 armed_ns = devices::kNever;  // what the timer thread waits for; under `lock`
  channel::Channel channel;        // changed by attach() only, which no service thread sees
  DeviceMemory device_memory;
  channel::SerialTaker posted;  // under `lock`
  std::atomic<bool> closing{false};

  // The caller holds `lock`. Bytes that the core has posted for COM1 reach it; before each request is served.
  u32 take_posted();
  // The caller holds `lock`. What the core may know of the devices, and then the interrupts that tell of it: before
  // each reply, and after each event.
  void publish();

  // Takes the channel to a new core, and puts the chipset into its state after RESET. No service thread runs.
  void attach(channel::Channel next, DeviceMemory memory);
  // Asks the core to leave the engine and end. Any thread.
  void stop_core();
  // The first reason counts; the core is asked to stop.
  void finish(End end_reason, u32 value = 0, std::string text = {});
  // A thread of the monitor cannot go on.
  void fail(ExitCode code, const std::string& text) { finish(End::failed, static_cast<u32>(code), text); }

  // System calls of the threads that serve vCPUs, beside the common ones: what devices do inside an access.
  std::vector<int> service_calls() const;

  // PowerSink, SerialBackend: called by the chipset under `lock`.
  void power_off() override { finish(End::power_off); }
  void reset() override { finish(End::reset); }
  void debug_exit(u32 value) override { finish(End::debug_exit, value); }
  void write(u8 byte) override {
    if (!display) output.put(byte);
  }

 private:
  std::mutex channel_mutex_;  // innermost: stop_core() comes from any thread, also while attach() is at work
};

// The service thread of one vCPU: answers its requests until the channel closes.
void serve_vcpu(MachineState& machine, u32 index);
// The screen's thread: sends what has changed to the console, until `closing`.
void run_screen(MachineState& machine);
// The console thread: takes what is posted for COM1 when no request does it, until `closing`.
void run_console(MachineState& machine);
// The timer thread (--clock real): ticks the chipset at its deadlines until `closing`.
void run_timer(MachineState& machine);

}  // namespace trapline::monitor
