#include "monitor/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <utility>

#include "base/host_refused.h"
#include "base/overloaded.h"
#include "channel/exit_codes.h"
#include "monitor/vm_run.h"

namespace trapline::monitor {

namespace {

constexpr std::chrono::seconds kPowerButton{30};  // for a guest to shut down

Err<ActionError> refused(ActionError::Kind kind, u64 value = 0) { return {ActionError{kind, value}}; }

}  // namespace

Vm::Vm(const machine::Config& config, Speaker speaker) : run_{std::make_unique<VmRun>(config, std::move(speaker))} {}
Vm::~Vm() = default;
int Vm::run() { return run_->run(); }
VmState Vm::state() const { return run_->state(); }
Result<Answer, ActionError> Vm::act(const Action& what) { return run_->act(what); }

VmRun::VmRun(const machine::Config& config, Speaker speaker)
    : config_{config},
      speaker_{std::move(speaker)},
      watch_{{.end = end_,
              .hurry = hurry_,
              .core = core_,
              .terminal = terminal_,
              .tell = [this](const std::string& line) { complain(line); },
              .pause = [this] { (void)act(action::Pause{}); },
              .resume = [this] { (void)act(action::Resume{}); },
              .pass_on = [this](int signal) { return pass_on(signal); }},
             config.timeout_seconds} {}

VmRun::~VmRun() {
  if (registry_) registry_->leave(name_);
}

int VmRun::run() {
  const int code = watch_.run([this] {
    const int of_life = live();
    return config_.command.wanted ? code_of_command(of_life) : of_life;
  });
  state_ = VmState::ended;
  return code;
}

bool VmRun::change(VmState from, VmState to) { return state_.compare_exchange_strong(from, to); }

Result<Answer, ActionError> VmRun::act(const Action& what) {
  if (const VmState now = state(); !allowed(what, now))
    return refused(ActionError::Kind::wrong_state, static_cast<u64>(now));
  return std::visit(Overloaded{
                        [&](action::Pause) { return pause(); },
                        [&](action::Resume) { return resume(); },
                        [&](action::PressPowerButton) { return press_power_button(); },
                        [&](action::QueryBalloon) { return query_balloon(); },
                        [&](action::SetBalloon a) { return set_balloon(a.bytes); },
                    },
                    what);
}

Result<Answer, ActionError> VmRun::pause() {
  if (!change(VmState::running, VmState::paused))
    return refused(ActionError::Kind::wrong_state, static_cast<u64>(state()));
  core_.signal(SIGSTOP);
  return Answer{};
}

Result<Answer, ActionError> VmRun::resume() {
  if (!change(VmState::paused, VmState::running))
    return refused(ActionError::Kind::wrong_state, static_cast<u64>(state()));
  core_.signal(SIGCONT);
  return Answer{};
}

Result<Answer, ActionError> VmRun::press_power_button() {
  if (machine_->deterministic) return refused(ActionError::Kind::deterministic);
  std::lock_guard guard{machine_->lock};
  if (machine_->channel.vcpus() == 0) return refused(ActionError::Kind::not_listening);  // not yet powered on
  const bool listens = machine_->chipset.press_power_button();
  machine_->publish();
  if (!listens) return refused(ActionError::Kind::not_listening);
  return Answer{};
}

Result<devices::virtio::Balloon*, ActionError> VmRun::balloon() const {
  devices::virtio::Balloon* const balloon = machine_->virtio.balloon();
  if (!balloon) return refused(ActionError::Kind::no_balloon);
  if (machine_->deterministic) return refused(ActionError::Kind::deterministic);
  return balloon;
}

Result<Answer, ActionError> VmRun::query_balloon() const {
  const auto it = balloon();
  if (!it) return Err{it.error()};
  return Answer{BalloonSizes{(*it)->target(), (*it)->actual()}};
}

Result<Answer, ActionError> VmRun::set_balloon(u64 bytes) {
  const auto it = balloon();
  if (!it) return Err{it.error()};
  if (bytes >= config_.memory) return refused(ActionError::Kind::too_large, config_.memory);
  (*it)->set_target(bytes);
  return query_balloon();
}

// On the control socket's thread.
std::string VmRun::answer(std::string_view request) {
  const auto what = parse_action(request);
  return line_of(what ? act(*what) : Result<Answer, ActionError>{Err{what.error()}});
}

// Signals that are for the command, and SIGTERM as a power button, once. Watch's thread.
std::optional<std::chrono::seconds> VmRun::pass_on(int signal) {
  constexpr std::chrono::seconds kForEver{0};
  if (command_runs_) {
    if (signal == SIGWINCH) return attachments_.command->resize(), kForEver;
    return attachments_.command->signal(signal) ? std::optional{kForEver} : std::nullopt;
  }
  if (signal != SIGTERM || config_.command.wanted || std::exchange(button_pressed_, true)) return std::nullopt;
  return act(action::PressPowerButton{}) ? std::optional{kPowerButton} : std::nullopt;
}

// -- The process
namespace {

const Speaker* last_words = nullptr;
std::atomic<char*> reserve{nullptr};  // for the last words, which need memory themselves

[[noreturn]] void on_no_memory() {
  std::set_new_handler([] { ::_exit(static_cast<int>(ExitCode::host_refused)); });
  ::free(reserve.exchange(nullptr));
  restore_terminal();
  last_words->line("the host has no memory left for the monitor: free some", -1);
  ::_exit(static_cast<int>(ExitCode::host_refused));  // the core goes with it
}

}  // namespace

bool secure_standard_descriptors() {
  bool output_open = true;
  for (int fd : {0, 1, 2}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    if (fd == 1) output_open = false;
    // What a command prints there must fail as on a closed one: nobody writes to a descriptor for reading.
    const int null = ::open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY);
    if (null >= 0 && null != fd) {
      ::dup2(null, fd);
      ::close(null);
    }
  }
  return output_open;
}

int run_vm(const machine::Config& config, const Speaker& speaker) {
  constexpr std::size_t kReserve = 256 * KiB;  // mapped alone, so that it is given back at once
  last_words = &speaker;
  reserve = static_cast<char*>(::malloc(kReserve));
  std::set_new_handler(on_no_memory);
  install_terminal_guard();
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  try {
    const int code = Vm{config, speaker}.run();
    gdb::forget_path();
    return code;
  } catch (const HostRefused& refused) {
    speaker.line(refused.what(), -1);
    return static_cast<int>(config.command.wanted ? ExitCode::vm_failed : ExitCode::host_refused);
  }
}

}  // namespace trapline::monitor
