#include "monitor/conclude.h"

#include <fmt/format.h>
#include <string.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "base/read_once.h"
#include "channel/core_start.h"

namespace trapline::monitor {

namespace {

// The core's last words, copied and checked.
struct LastWords {
  channel::EndKind kind = channel::EndKind::none;
  std::string text;
};

LastWords read_report(const channel::Report& report) {
  LastWords w;
  w.kind = static_cast<channel::EndKind>(report.kind.load(std::memory_order_acquire));
  const u32 length = std::min(read_once(report.length), channel::kReportBytes);
  w.text.assign(report.text, length);
  return w;
}

Conclusion with(ExitCode code, std::string text = {}) { return {static_cast<int>(code), std::move(text)}; }

Conclusion by_signal(int signal, const char* what = "") {
  const char* name = ::sigabbrev_np(signal);
  return {128 + signal,
          name ? fmt::format("ended by SIG{}{}", name, what) : fmt::format("ended by signal {}{}", signal, what)};
}

// Without a report: the way it died.
Conclusion of_status(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
    return with(ExitCode::internal_error,
                "internal error: the core made a system call that its sandbox forbids, and was killed");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return with(ExitCode::host_refused,
                "the core was killed from outside: perhaps the host ran out of memory; give a smaller --memory");
  if (WIFSIGNALED(status))
    return with(ExitCode::internal_error, fmt::format("internal error: the core died of signal {}", WTERMSIG(status)));
  if (WIFEXITED(status) && (WEXITSTATUS(status) == 127 || WEXITSTATUS(status) == channel::kCannotStart))
    return with(
        ExitCode::host_refused,
        "cannot start the core process: the executable cannot be run again: mount /proc, and raise the limits of "
        "memory and open files (ulimit -v, -d, -n)");
  if (WIFEXITED(status) && WEXITSTATUS(status) == channel::kNoReportYet)
    return with(ExitCode::internal_error, "internal error: the core ended before it could report why");
  if (WIFEXITED(status) && WEXITSTATUS(status) == channel::kReportFailed)
    return with(ExitCode::internal_error, "internal error: the core ended by a fault while it reported another");
  return with(ExitCode::internal_error,
              fmt::format("internal error: the core ended without a report, status {}", WEXITSTATUS(status)));
}

Conclusion of_core(const EndedRun& run) {
  const LastWords words = read_report(run.machine.channel.vm().report);
  const std::string text = present(words.text, run.symbols());
  switch (words.kind) {
    case channel::EndKind::boot_failed:
      return with(ExitCode::bad_input, text);
    case channel::EndKind::guest_crash:
      return with(ExitCode::guest_crash, text);
    case channel::EndKind::guest_halted:
      return with(ExitCode::guest_halted, text);
    case channel::EndKind::host_memory:
      return with(ExitCode::host_refused, text + ": free some, or give a smaller --memory");
    case channel::EndKind::host_refused:
      return with(ExitCode::host_refused, text);
    case channel::EndKind::internal_error:
      return with(ExitCode::internal_error, "internal error: " + text);
    case channel::EndKind::verify_failed:
      return with(ExitCode::verify_failed, text + "again: " + run.config.rerun);
    default:
      return of_status(run.core.wait_status());
  }
}

}  // namespace

Conclusion conclude(const EndedRun& run) {
  const auto reason = run.machine.end.get();
  const bool by_user = reason && reason->end == End::signal;
  if (run.signal && !by_user && run.machine.output.cut())
    return by_signal(run.signal, ": the guest's last output was not read");
  if (const int error = run.machine.output.failed(); error && !by_user)
    return with(ExitCode::console_lost,
                fmt::format("standard output: {}: the guest's console could not be written", ::strerror(error)));
  switch (reason ? reason->end : End::core_gone) {
    case End::power_off:
      return with(ExitCode::powered_off);
    case End::reset:
      return with(ExitCode::guest_reset, "the guest asked for a reset, and --no-reboot was given");
    case End::debug_exit:
      return {static_cast<int>((reason->value << 1 | 1) & 0xff), {}};
    case End::quit:
      return with(ExitCode::powered_off, "quit");
    case End::timeout:
      return with(ExitCode::timeout,
                  fmt::format("--timeout: the guest still ran after {} s", run.config.timeout_seconds));
    case End::signal:
      return by_signal(static_cast<int>(reason->value));
    case End::command:
      return {static_cast<int>(reason->value), {}};
    case End::failed:
      return {static_cast<int>(reason->value), reason->text};
    case End::console_lost:
    case End::core_gone:
      return of_core(run);
  }
  return with(ExitCode::internal_error, "internal error: no reason for the end");
}

}  // namespace trapline::monitor
