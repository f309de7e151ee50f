#include "monitor/gdb_core.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/read_once.h"
#include "channel/futex.h"

namespace trapline::monitor::gdb {

using channel::DebugCommand;
using channel::DebugMailbox;
using channel::DebugRegisters;

namespace {
constexpr u64 kLookNs = 100'000'000;          // a core that died wakes nobody
constexpr std::chrono::seconds kPatience{5};  // for a command: one that is obeyed takes microseconds
constexpr int kEveryone = 1 << 20;
}  // namespace

void CoreTarget::attach(channel::Channel& channel, bool pause) {
  std::lock_guard guard{lock_};
  channel_ = &channel;
  vcpus_ = channel.vcpus();
  write_stops();
  mailbox().stop.store(pause || asked_);
  mailbox().attached.store(listening_);
  gone_ = told_ = taken_ = false;
  watcher_ = start_confined_thread([this, &mailbox = mailbox()] { watch(mailbox); }, hooks_.failed);
}

void CoreTarget::detach() {
  gone_ = true;
  if (watcher_.joinable()) {
    mailbox().event.fetch_add(1);
    channel::futex_wake(mailbox().event, kEveryone);
    watcher_.join();
  }
  std::lock_guard guard{lock_};
  channel_ = nullptr;
}

void CoreTarget::set_listening(bool listening) {
  std::lock_guard guard{lock_};
  listening_ = listening;
  if (channel_) mailbox().attached.store(listening);
}

// Under the lock, against a resume between look and mark: the pause that it ends would be marked as told, and that mark
// would stand for the next one.
bool CoreTarget::to_be_told() {
  std::lock_guard guard{lock_};
  return all_paused() && !std::exchange(told_, true);
}

// Announces each pause once.
void CoreTarget::watch(DebugMailbox& m) {
  while (!gone_) {
    const u32 seen = m.event.load();
    if (to_be_told()) hooks_.paused();
    channel::futex_wait(m.event, seen, kLookNs);
  }
}

bool CoreTarget::paused() {
  std::lock_guard guard{lock_};
  return all_paused();
}

std::optional<Stop> CoreTarget::take_stop() {
  std::lock_guard guard{lock_};
  if (taken_ || !all_paused()) return std::nullopt;
  taken_ = true;
  asked_ = false;
  Stop stop;
  const u32 reporter = mailbox().reporter.load(std::memory_order_acquire);
  if (reporter == 0 || reporter > vcpus_) return stop;
  stop.vcpu = reporter - 1;
  const u32 report = read_once(mailbox().report), kind = read_once(mailbox().report_kind);
  if (report <= static_cast<u32>(channel::DebugReport::crash)) stop.report = static_cast<channel::DebugReport>(report);
  if (kind <= static_cast<u32>(channel::StopKind::access)) stop.kind = static_cast<channel::StopKind>(kind);
  stop.address = mailbox().report_address;
  return stop;
}

u32 CoreTarget::tell(DebugCommand command, u32 vcpu) {
  const u32 word = channel::command_word(command, vcpu, ++number_);
  mailbox().epoch.store(word);
  channel::futex_wake(mailbox().epoch, kEveryone);
  return word;
}

// The caller holds the lock. False: the core is gone, runs, or does not answer.
bool CoreTarget::perform(DebugCommand command, u32 vcpu, Gva address, u32 length) {
  if (!all_paused() || vcpu >= vcpus_) return false;
  DebugMailbox& m = mailbox();
  m.address = address, m.length = length;
  const u32 word = tell(command, vcpu);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const u32 seen = m.event.load();
    if (m.done.load(std::memory_order_acquire) == word) return true;
    if (gone_ || std::chrono::steady_clock::now() > deadline) return false;
    channel::futex_wait(m.event, seen, kLookNs);
  }
}

bool CoreTarget::read_registers(u32 vcpu, DebugRegisters& out) {
  std::lock_guard guard{lock_};
  if (!perform(DebugCommand::read_registers, vcpu)) return false;
  std::memcpy(&out, mailbox().data, sizeof out);
  return true;
}

bool CoreTarget::write_registers(u32 vcpu, const DebugRegisters& in) {
  std::lock_guard guard{lock_};
  if (!all_paused()) return false;
  std::memcpy(mailbox().data, &in, sizeof in);
  return perform(DebugCommand::write_registers, vcpu);
}

std::size_t CoreTarget::read_memory(u32 vcpu, Gva address, std::span<u8> out) {
  std::lock_guard guard{lock_};
  std::size_t done = 0;
  while (done < out.size()) {
    const u32 length = static_cast<u32>(std::min<std::size_t>(out.size() - done, DebugMailbox::kDataBytes));
    if (!perform(DebugCommand::read_memory, vcpu, address.wrapping_add(done), length)) break;
    const u32 n = std::min(read_once(mailbox().result), length);
    std::memcpy(out.data() + done, mailbox().data, n);
    done += n;
    if (n < length) break;
  }
  return done;
}

std::size_t CoreTarget::write_memory(u32 vcpu, Gva address, std::span<const u8> in) {
  std::lock_guard guard{lock_};
  std::size_t done = 0;
  while (done < in.size() && all_paused()) {
    const u32 length = static_cast<u32>(std::min<std::size_t>(in.size() - done, DebugMailbox::kDataBytes));
    std::memcpy(mailbox().data, in.data() + done, length);
    if (!perform(DebugCommand::write_memory, vcpu, address.wrapping_add(done), length)) break;
    const u32 n = std::min(read_once(mailbox().result), length);
    done += n;
    if (n < length) break;
  }
  return done;
}

std::optional<Gpa> CoreTarget::translate(u32 vcpu, Gva address) {
  std::lock_guard guard{lock_};
  if (!perform(DebugCommand::translate, vcpu, address) || mailbox().result != 1) return std::nullopt;
  Gpa gpa;
  std::memcpy(&gpa, mailbox().data, sizeof gpa);
  return gpa;
}

void CoreTarget::set_stops(const std::vector<channel::DebugStop>& stops) {
  std::lock_guard guard{lock_};
  stops_ = stops;
  if (stops_.size() > DebugMailbox::kStops) stops_.resize(DebugMailbox::kStops);
  stops_changed_ = true;
}

void CoreTarget::write_stops() {
  std::copy(stops_.begin(), stops_.end(), mailbox().stops);
  mailbox().stop_count = static_cast<u32>(stops_.size());
  stops_changed_ = false;
}

void CoreTarget::resume(u64 run_mask, u64 step_mask, bool step_interrupts) {
  std::lock_guard guard{lock_};
  if (!all_paused()) return;
  if (stops_changed_) {
    write_stops();
    perform(DebugCommand::load_stops, 0);
  }
  DebugMailbox& m = mailbox();
  m.step_interrupts = step_interrupts;
  m.reporter.store(0);
  m.stop.store(0);
  m.paused.fetch_and(~((run_mask | step_mask) & all()));
  taken_ = false;
  told_ = false;
  for (u32 i = 0; i < vcpus_; i++) {  // each may be off at once
    const channel::Go go = step_mask >> i & 1  ? channel::Go::step
                           : run_mask >> i & 1 ? channel::Go::run
                                               : channel::Go::no;
    m.go[i].store(static_cast<u32>(go));
  }
  tell(DebugCommand::resume, 0);
}

void CoreTarget::interrupt() {
  std::lock_guard guard{lock_};
  asked_ = true;
  if (!channel_ || gone_) return;
  mailbox().stop.store(1);
  for (u32 i = 0; i < vcpus_; i++) channel::kick(channel_->vcpu(i), channel::attention::kick);
  hooks_.nudge();
}

}  // namespace trapline::monitor::gdb
