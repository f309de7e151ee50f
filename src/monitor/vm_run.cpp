#include "monitor/vm_run.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>

#include "base/host_refused.h"
#include "channel/futex.h"
#include "channel/trace_sink.h"
#include "monitor/conclude.h"
#include "monitor/thread.h"

namespace trapline::monitor {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStopPatience{1000};
constexpr milliseconds kHurriedPatience{100};
constexpr milliseconds kMapEvery{500};      // --perf-map
constexpr std::chrono::seconds kSilent{5};  // a guest that has written nothing for so long gets a hint

// A guest's text for a terminal of the user's.
std::string printable_lines(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t') c = ' ';
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

int VmRun::live() {
  tsc_.begin();
  if (auto opened = open(); !opened) return fail(opened.error());
  state_ = VmState::running;
  watch_.machine_begins();
  if (!config_.command.wanted || config_.command.terminal) terminal_.begin();
  return run_machine();
}

void VmRun::start_control() {
  if (!registry_) return;
  control_ = std::make_unique<ControlSocket>(
      *registry_, name_, [this](std::string_view request) { return answer(request); },
      [this](ExitCode code, const std::string& text) { machine_->fail(code, text); });
}

// The command's own code, a signal to this process, or why there is none.
int VmRun::code_of_command(int code) {
  const auto reason = end_.get();
  if (reason && reason->end == End::command) return code;
  if (reason && reason->end == End::timeout) return static_cast<int>(ExitCode::command_timeout);
  if (code > 128) return code;
  if (reason && reason->end == End::power_off) complain("the VM powered off before the command had ended");
  if (const std::string words = machine_ ? machine_->output.kept() : std::string{}; !words.empty())
    complain("the VM's last words:\n" + printable_lines(words));
  return static_cast<int>(ExitCode::vm_failed);
}

int VmRun::run_machine() {
  stats_.resize(config_.cpus);
  started_ = Clock::now();
  try {
    if (gdb_listener_) start_debugger();
    start_control();
    lives();
  } catch (const HostRefused& refused) {
    machine_->fail(ExitCode::host_refused, refused.what());
    core_.kill_and_wait();
    if (gdb_) gdb_->core_ended();
    stop_service();
  }
  control_.reset();
  machine_->input.stop();
  if (attachments_.command) attachments_.command->stop();
  machine_->output.flush();
  terminal_.finish();
  channel::flush_trace();
  const Conclusion end = conclude({config_, *machine_, core_, watch_.signal(), [this] { return symbols(); }});
  complain_if(end.text);
  report_all(end.code);
  return end.code;
}

// From one power-on to the next, until something other than a reset ends it.
void VmRun::lives() {
  for (bool first = true;; first = false) {
    resets_.started(Clock::now());
    if (auto on = power_on(); !on) return fail_running(on.error());
    start_service();
    if (first) {
      // They have come up beside the core.
      if (auto ready = shares_ready(); !ready) {
        fail_running(ready.error());
        stop_core();
        return stop_service();
      }
      start_input();
    }
    await_end();
    stop_core();
    update_perf_map();
    if (gdb_) gdb_->core_ended();
    stop_service();
    collect_stats();
    if (config_.no_reboot || !starts_over()) return;
  }
}

void VmRun::start_input() {
  if (attachments_.command) {
    attachments_.command->start();
    command_runs_ = true;
  } else {
    machine_->input.start();
  }
}

bool VmRun::starts_over() {
  if (!end_.take_reset()) return false;
  const auto pause = std::chrono::ceil<milliseconds>(resets_.reset(Clock::now()));
  pollfd p{end_.fd(), POLLIN, 0};
  ::poll(&p, 1, static_cast<int>(pause.count()));
  if (resets_.exceeded())
    machine_->fail(
        ExitCode::guest_reset,
        fmt::format("the guest has reset {} times in a row within a second of its start: --no-reboot ends it "
                    "at the first",
                    ResetLimit::kMostShortLives));
  return !end_.get();
}

void VmRun::start_service() {
  MachineState& m = *machine_;
  m.input.let_go(false);
  const auto failed = [&m](ExitCode code, const std::string& text) { m.fail(code, text); };
  threads_.reserve(config_.cpus + 2);
  for (u32 i = 0; i < config_.cpus; i++)
    threads_.push_back(start_confined_thread([&m, i] { serve_vcpu(m, i); }, failed, m.service_calls()));
  threads_.push_back(start_confined_thread([&m] { run_console(m); }, failed));
  if (m.display) threads_.push_back(start_confined_thread([&m] { run_screen(m); }, failed));
  if (!m.deterministic) threads_.push_back(start_confined_thread([&m] { run_timer(m); }, failed));
  for (auto& worker : m.virtio.workers())
    threads_.push_back(start_confined_thread(std::move(worker.body), failed, std::move(worker.calls)));
}

void VmRun::await_end() {
  while (!end_.get()) {
    milliseconds rest{-1};
    if (!hinted_) rest = std::chrono::ceil<milliseconds>(started_ + kSilent - Clock::now());
    if (perf_map_.open()) rest = hinted_ ? kMapEvery : std::min(rest, kMapEvery);
    pollfd p{end_.fd(), POLLIN, 0};
    ::poll(&p, 1, static_cast<int>(hinted_ && !perf_map_.open() ? -1 : std::max(rest, milliseconds{0}).count()));
    update_perf_map();
    if (!hinted_ && Clock::now() >= started_ + kSilent) give_hint();
  }
  if (const auto reason = end_.get(); reason && reason->end == End::quit) hurry_.set();
}

// Lets it publish its counters; a core that does not is killed. Nobody who is in a hurry waits for what comes after.
void VmRun::stop_core() {
  if (!core_.running()) return;
  machine_->stop_core();
  const auto begun = Clock::now();
  const channel::Report& words = machine_->channel.vm().report;
  while (!core_.reap() && Clock::now() < begun + kStopPatience) {
    const bool said = words.kind.load(std::memory_order_acquire) != 0;
    if (hurry_.is_set() && said && Clock::now() > begun + kHurriedPatience) return core_.kill_and_leave();
    std::this_thread::sleep_for(milliseconds{2});
  }
  core_.kill_and_wait();
}

void VmRun::stop_service() {
  MachineState& m = *machine_;
  m.virtio.close();  // first: who holds the lock may wait for the core's answer
  {
    std::lock_guard guard{m.lock};
    m.closing = true;
  }
  m.timer.notify_all();
  m.frames.notify_all();
  m.input.let_go(true);
  for (u32 i = 0; i < m.channel.vcpus(); i++) {  // the core is gone: nobody else writes these now
    m.channel.vcpu(i).turn.store(static_cast<u32>(channel::Turn::closed));
    channel::futex_wake(m.channel.vcpu(i).turn);
  }
  if (m.channel.vcpus() > 0) m.channel.vm().serial.wake();
  for (auto& t : threads_) t.join();
  threads_.clear();
  m.virtio.settle();
  std::lock_guard guard{m.lock};
  m.take_posted();  // the core's last bytes
}

}  // namespace trapline::monitor
