// What the user is told of a run besides how it ended: hints, traces, figures, reports; and what a debugger is.
#include <fmt/format.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>

#include "channel/trace_sink.h"
#include "monitor/run_figures.h"
#include "monitor/scan_report.h"
#include "monitor/stats.h"
#include "monitor/vm_run.h"

namespace trapline::monitor {

namespace {

// Counters of one vCPU are words, and add up.
void add(channel::VcpuStats& sum, const channel::VcpuStats& more) {
  static_assert(sizeof more % sizeof(u64) == 0);
  auto* to = reinterpret_cast<u64*>(&sum);
  const auto* from = reinterpret_cast<const u64*>(&more);
  for (std::size_t k = 0; k < sizeof more / sizeof(u64); k++) to[k] += from[k];
}

}  // namespace

// A kernel that was not told of the serial port is the commonest reason for a screen that stays empty.
void VmRun::give_hint() {
  hinted_ = true;
  if (machine_->output.used() || machine_->display || config_.append.find("console=") != std::string::npos ||
      config_.gdb_wait)
    return;
  const bool may_be_linux =
      config_.firmware.empty() && machine_->channel.vm().boots.load() != static_cast<u32>(channel::Boots::not_linux);
  const bool xen = config_.para == machine::ParaChoice::xen;
  complain(
      fmt::format("the guest has printed nothing yet; its console is {}", xen ? "Xen's" : "the first serial port") +
      (may_be_linux ? fmt::format(": Linux is told by --append console={}", xen ? "hvc0" : "ttyS0") : ""));
}

// A trace that ended early is worse than none if nobody knows.
void VmRun::complain_of_trace() {
  const int error = trace_error_ ? trace_error_ : channel::trace_error();
  if (error == 0) return;
  const std::string where =
      config_.trace_file.empty() ? "--trace: standard error" : "--trace-file " + config_.trace_file;
  complain(fmt::format("{}: {}: the trace is not complete", where,
                       error == ECANCELED ? "its reader was too slow" : ::strerror(error)));
}

// Over resets.
void VmRun::collect_stats() {
  if (const u32 error = machine_->channel.vm().trace_error) trace_error_ = static_cast<int>(error);
  for (u32 i = 0; i < config_.cpus; i++) {
    const channel::VcpuStats copy = machine_->channel.vcpu(i).stats;
    add(stats_[i], copy);
  }
}

Symbols VmRun::symbols() const {
  if (!images_.system_map) return {};
  std::string text;
  char buffer[65536];
  for (off_t at = 0;;) {
    const ssize_t n = ::pread(images_.system_map.get(), buffer, sizeof buffer, at);
    if (n <= 0 || text.size() > 256 * MiB) break;
    text.append(buffer, static_cast<std::size_t>(n));
    at += n;
  }
  return Symbols::parse(text);
}

void VmRun::update_perf_map() {
  if (!perf_map_.open()) return;
  if (!symbols_) symbols_ = symbols();
  complain_if(perf_map_.update(images_.names.get(), *symbols_));
}

void VmRun::report_executed() {
  if (!images_.scan_report) return;
  const std::string why =
      write_scan_report(images_.scan_report.get(), images_.executed.get(), config_.kernel, symbols(), hurry_.fd());
  if (!why.empty()) complain(fmt::format("--scan-report {}: {}", config_.scan_report, why));
}

// Who asked for them sees that there are none.
void VmRun::report_figures() {
  if (config_.figures_fd < 0) return;
  RunFigures figures{.tsc_khz = machine_->deterministic ? 0 : tsc_khz_, .sum = {}};
  for (const channel::VcpuStats& vcpu : stats_) add(figures.sum, vcpu);
  (void)write_figures(config_.figures_fd, figures);
}

void VmRun::report_verified() {
  if (!config_.verify) return;
  const channel::VcpuStats& s = stats_.front();
  complain(fmt::format("--verify: {} instructions in {} stretches were the same", s.verified_instructions,
                       s.verified_stretches));
}

void VmRun::report_all(int code) {
  report_executed();
  complain_of_trace();
  report_verified();
  if (gdb_) end_debugger(code);
  report_figures();
  if (config_.stats)
    speaker_.report(stats_text(stats_, std::chrono::duration<double>(Clock::now() - started_).count()), hurry_.fd());
}

void VmRun::start_debugger() {
  MachineState& m = *machine_;
  gdb_ =
      std::make_unique<gdb::Server>(std::move(gdb_listener_), config_.gdb_wait,
                                    gdb::Server::Hooks{
                                        .nudge = [&m] { m.input.nudge(); },
                                        .end = [&m] { m.finish(End::quit); },
                                        .failed = [&m](ExitCode code, const std::string& text) { m.fail(code, text); },
                                    });
}

void VmRun::end_debugger(int code) {
  const auto reason = end_.get();
  gdb_->finish(code, reason && reason->end == End::signal ? static_cast<int>(reason->value) : 0);
}

}  // namespace trapline::monitor
