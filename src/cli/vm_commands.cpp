#include "cli/vm_commands.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/standard_error.h"
#include "monitor/console_keeper.h"
#include "monitor/control.h"
#include "monitor/registry.h"
#include "wording/vm_error.h"

namespace trapline::cli {

namespace {

using std::chrono::steady_clock;

std::string age(i64 seconds) {
  if (seconds < 120) return fmt::format("{} s", std::max<i64>(seconds, 0));
  if (seconds < 7200) return fmt::format("{} min", seconds / 60);
  return fmt::format("{} h", seconds / 3600);
}

// Its file is let go of when it ends: a process id alone may be another's by then.
bool ends_within(const monitor::Registry& registry, const monitor::RunningVm& vm, double seconds) {
  const auto limit = steady_clock::now() + std::chrono::duration<double>{seconds};
  for (;;) {
    const auto now = registry.find(vm.name);
    if (!now || now->pid != vm.pid) return true;
    if (steady_clock::now() >= limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
}

}  // namespace

VmCommands::VmCommands(CLI::App& app)
    : ps_{app.add_subcommand("ps", "list this user's VMs that run now")},
      stop_{app.add_subcommand("stop", "press a VM's power button; kill it if that does not help")},
      kill_{app.add_subcommand("kill", "end a VM at once")},
      console_{app.add_subcommand("console", "the console of a VM that was started with --detach (Ctrl-A D leaves)")},
      logs_{app.add_subcommand("logs", "what a VM that was started with --detach has said")},
      balloon_{app.add_subcommand("balloon", "how much memory a VM has given away, or shall give away")} {
  ps_->add_flag("--json", json_, "as JSON");
  logs_->add_flag("--follow", follow_, "until the VM ends");
  for (CLI::App* c : {stop_, kill_, console_, logs_, balloon_})
    c->add_option("NAME", name_, "as `trapline ps` has it")->type_name("VM");
  balloon_->add_option("SIZE", size_, "such as 256M; 0: nothing")->type_name("SIZE");
  stop_->add_option("--timeout", timeout_, "how long to wait before it is killed")
      ->type_name("SECONDS")
      ->capture_default_str();
}

int VmCommands::run() {
  if (ps_->parsed()) return list();
  if (balloon_->parsed()) return balloon();
  if (!console_->parsed() && !logs_->parsed()) return end();
  if (name_.empty()) {
    const char* command = console_->parsed() ? "console" : "logs";
    say(fmt::format("{0}: no VM: name one: trapline {0} NAME", command));
    return static_cast<int>(ExitCode::usage);
  }
  const monitor::Speaker speaker = on_standard_error();
  return console_->parsed() ? monitor::attach_console(name_, speaker) : monitor::show_log(name_, follow_, speaker);
}

int VmCommands::list() const {
  const auto registry = monitor::Registry::open();
  if (!registry) {
    say(wording::line(registry.error()));
    return static_cast<int>(ExitCode::bad_input);
  }
  const auto vms = registry->all();
  if (json_) {
    auto all = nlohmann::json::array();
    for (const auto& vm : vms)
      all.push_back({{"name", vm.name}, {"pid", vm.pid}, {"started", vm.started}, {"what", vm.what}});
    return print(all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", 0);
  }
  std::string text;
  if (!vms.empty()) text = fmt::format("{:<16} {:>8} {:>8}  {}\n", "NAME", "PID", "UP", "WHAT");
  for (const auto& vm : vms)
    text += fmt::format("{:<16} {:>8} {:>8}  {}\n", vm.name, vm.pid, age(::time(nullptr) - vm.started), vm.what);
  return print(text, 0);
}

int VmCommands::end() const {
  const auto failed = [](ExitCode code, const std::string& why) {
    say(why);
    return static_cast<int>(code);
  };
  const char* command = stop_->parsed() ? "stop" : "kill";
  if (name_.empty()) return failed(ExitCode::usage, fmt::format("{0}: no VM: name one: trapline {0} NAME", command));
  const auto registry = monitor::Registry::open();
  if (!registry) return failed(ExitCode::bad_input, wording::line(registry.error()));
  const auto vm = registry->find(name_);
  if (!vm) return failed(ExitCode::bad_input, fmt::format("{} {}", command, wording::line(vm.error())));
  if (stop_->parsed()) {
    ::kill(vm->pid, SIGTERM);
    if (ends_within(*registry, *vm, timeout_)) return 0;
  }
  ::kill(vm->pid, SIGKILL);
  ends_within(*registry, *vm, 10);
  if (kill_->parsed()) return 0;
  return failed(ExitCode::timeout, fmt::format("stop {}: it still ran after {} s and was killed", name_, timeout_));
}

int VmCommands::balloon() const {
  const auto failed = [](ExitCode code, const std::string& why) {
    say("balloon " + why);
    return static_cast<int>(code);
  };
  if (name_.empty()) return failed(ExitCode::usage, "NAME: no VM: name one: trapline balloon NAME [SIZE]");
  const auto bytes = size_.empty() || size_ == "0" ? std::optional<u64>{0} : parse_size(size_);
  if (!bytes) return failed(ExitCode::usage, fmt::format("{} {}: give a size like 256M, or 0", name_, size_));
  const auto registry = monitor::Registry::open();
  if (!registry) return failed(ExitCode::bad_input, wording::line(registry.error()));
  if (const auto vm = registry->find(name_); !vm) return failed(ExitCode::bad_input, wording::line(vm.error()));
  const auto answer = monitor::ask_vm(*registry, name_, size_.empty() ? "balloon" : fmt::format("balloon {}", *bytes));
  if (!answer) return failed(ExitCode::bad_input, wording::line(answer.error()));
  const auto said = monitor::parse_answer(*answer);
  if (!said) return failed(ExitCode::bad_input, name_ + ": " + wording::line(said.error()));
  const auto* sizes = std::get_if<monitor::BalloonSizes>(&*said);
  return print(sizes ? fmt::format("{}: shall give away {} MiB, has given away {} MiB\n", name_, sizes->target / MiB,
                                   sizes->actual / MiB)
                     : fmt::format("{}: done\n", name_),
               0);
}

}  // namespace trapline::cli
