// The main thread's part: it starts the core and the threads that serve it, sleeps until something ends the VM, takes
// all down again in reverse order, and says what happened. A reset is the same once more with the same files.
#include "monitor/vm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "base/guest_memory.h"
#include "base/trace.h"
#include "core/exit_codes.h"
#include "core/futex.h"
#include "core/trace_sink.h"
#include "monitor/core_process.h"
#include "monitor/gdb_server.h"
#include "monitor/images.h"
#include "monitor/machine_state.h"
#include "monitor/perf_map.h"
#include "monitor/scan_report.h"
#include "monitor/signals.h"
#include "monitor/stats.h"
#include "monitor/symbols.h"
#include "monitor/terminal.h"

namespace trapline::monitor {

namespace {

using std::chrono::steady_clock;

constexpr int kStopPatienceMs = 1000;
constexpr int kMapEveryMs = 500;  // --perf-map

void complain(const std::string& text) { fmt::print(stderr, "trapline: {}\n", text); }

void complain_if(const std::string& text) {
  if (!text.empty()) complain(text);
}

int fail(ExitCode code, const std::string& text) {
  complain(text);
  return static_cast<int>(code);
}

// The core's last words, copied and checked.
struct LastWords {
  core::EndKind kind = core::EndKind::none;
  std::string text;
};

LastWords read_report(const core::Report& report) {
  LastWords w;
  w.kind = static_cast<core::EndKind>(report.kind.load(std::memory_order_acquire));
  const u32 length = std::min(report.length, core::kReportBytes);
  w.text.assign(report.text, length);
  return w;
}

class VmRun {
 public:
  explicit VmRun(const machine::Config& config) : config_{config} {}
  int run();

 private:
  int run_machine(Terminal& terminal);
  Result<void, std::string> power_on();
  void start_service();
  void await_end(Terminal& terminal);
  void on_signal(int signal, Terminal& terminal);
  void stop_core();
  void stop_service();
  void collect_stats();
  void complain_of_trace() const;
  void update_perf_map();
  void report_executed() const;
  void report_verified() const;
  int conclude();
  int conclude_core();
  void start_debugger();
  void end_debugger(int code);
  void drain_output();
  Symbols symbols() const;

  const machine::Config& config_;
  SignalSource signals_;
  TscMeasurement tsc_;
  u64 tsc_khz_ = 0;
  Images images_;
  PerfMap perf_map_;
  std::optional<Symbols> symbols_;  // once they are wanted
  std::unique_ptr<MachineState> machine_;
  CoreProcess core_;
  Fd timeout_, gdb_listener_;
  std::unique_ptr<gdb::Server> gdb_;
  std::vector<std::thread> threads_;
  std::vector<core::VcpuStats> stats_;
  int trace_error_ = 0;  // the core's
  steady_clock::time_point started_;
};

int VmRun::run() {
  tsc_.begin();
  install_terminal_guard();
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  auto images = Images::open(config_);
  if (!images) return fail(ExitCode::bad_input, images.error());
  images_ = std::move(*images);
  if (config_.gdb_port != 0) {
    auto listener = gdb::listen_on_loopback(config_.gdb_port);
    if (!listener) return fail(ExitCode::bad_input, listener.error());
    gdb_listener_ = std::move(*listener);
    if (config_.gdb_wait) complain(fmt::format("waiting for a debugger: target remote localhost:{}", config_.gdb_port));
  }
  trace::mask = config_.trace_mask;
  if (images_.trace) core::open_trace(images_.trace.get());
  if (config_.timeout_seconds > 0) {
    timeout_ = Fd{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
    itimerspec when{};
    when.it_value.tv_sec = static_cast<time_t>(config_.timeout_seconds);
    when.it_value.tv_nsec = static_cast<long>(std::fmod(config_.timeout_seconds, 1.0) * 1e9);
    if (when.it_value.tv_sec == 0 && when.it_value.tv_nsec == 0) when.it_value.tv_nsec = 1;
    ::timerfd_settime(timeout_.get(), 0, &when, nullptr);
  }
  Terminal terminal;
  return run_machine(terminal);
}

int VmRun::run_machine(Terminal& terminal) {
  machine_ = std::make_unique<MachineState>(config_, STDOUT_FILENO, ::isatty(STDIN_FILENO) != 0);
  stats_.resize(config_.cpus);
  if (gdb_listener_) start_debugger();
  started_ = steady_clock::now();
  bool first = true;
  for (;;) {
    if (auto on = power_on(); !on) return fail(ExitCode::host_refused, on.error());
    start_service();
    if (first) machine_->input.start();
    first = false;
    await_end(terminal);
    stop_core();
    update_perf_map();
    if (gdb_) gdb_->core_ended();
    stop_service();
    collect_stats();
    const auto reason = machine_->end.get();
    if (!reason || reason->end != End::reset || config_.no_reboot) break;
    machine_->end.clear();
  }
  machine_->input.stop();
  drain_output();
  terminal.suspend();
  core::flush_trace();
  const int code = conclude();
  report_executed();
  complain_of_trace();
  report_verified();
  if (gdb_) end_debugger(code);
  if (config_.stats)
    fmt::print(stderr, "{}", stats_text(stats_, std::chrono::duration<double>(steady_clock::now() - started_).count()));
  return code;
}

// Fresh RAM, channel and core process; devices as after RESET.
Result<void, std::string> VmRun::power_on() {
  MachineState& m = *machine_;
  auto channel = core::Channel::create(config_.cpus);
  if (!channel) return Err{channel.error()};
  auto ram = GuestMemory::create_fd(config_.memory);
  if (!ram) return Err{ram.error() + ": give a smaller --memory"};
  const Fd ram_fd{*ram};
  auto device_memory = core::DeviceMemory::create();
  if (!device_memory) return Err{device_memory.error()};
  core::Launch launch = images_.launch(config_);
  launch.ram_fd = ram_fd.get();
  launch.devices_fd = device_memory->fd();
  const auto bytes = core::pack(launch);
  if (bytes.size() > core::kLaunchBytes)
    return Err{std::string{"--append and module arguments are too long: shorten them"}};
  std::memcpy(channel->launch(), bytes.data(), bytes.size());
  core::VmPage& page = channel->vm();
  page.launch_length = static_cast<u32>(bytes.size());
  {
    std::lock_guard guard{m.lock};
    m.channel = std::move(*channel);
    m.device_memory = std::move(*device_memory);
    m.posted = {};
    m.interrupts.attach(m.channel);
    m.chipset.reset();
    m.publish();
    m.closing = false;
    page.start_ns = m.deterministic ? m.time.now_ns() : 0;
  }
  if (gdb_) gdb_->core_starting(m.channel);
  auto descriptors = images_.inherited();
  descriptors.push_back(ram_fd.get());
  descriptors.push_back(m.device_memory.fd());
  if (auto started = core_.start(m.channel, descriptors); !started) return started;
  if (images_.names) {
    complain_if(perf_map_.begin(images_.names.get(), core_.pid()));
    if (perf_map_.open()) complain(fmt::format("--perf-map: {}: perf record -p {}", perf_map_.path(), core_.pid()));
  }
  if (tsc_khz_ == 0) {  // the core reads its images meanwhile
    tsc_khz_ = m.deterministic ? 1'000'000 : tsc_.khz();
    if (!m.deterministic) m.time.start(tsc_khz_);
  }
  page.tsc_khz = tsc_khz_;
  page.tsc_offset = ~m.time.origin() + 1;
  page.clock_ready.store(1, std::memory_order_release);
  core::futex_wake(page.clock_ready);
  return {};
}

void VmRun::start_debugger() {
  MachineState& m = *machine_;
  gdb_ = std::make_unique<gdb::Server>(
      std::move(gdb_listener_), config_.gdb_wait,
      gdb::Server::Hooks{.nudge = [&m] { m.input.nudge(); }, .end = [&m] { m.finish(End::quit); }});
}

void VmRun::end_debugger(int code) {
  const auto reason = machine_->end.get();
  gdb_->finish(code, reason && reason->end == End::signal ? static_cast<int>(reason->value) : 0);
}

void VmRun::start_service() {
  MachineState& m = *machine_;
  for (u32 i = 0; i < config_.cpus; i++) threads_.emplace_back([&m, i] { serve_vcpu(m, i); });
  threads_.emplace_back([&m] { run_console(m); });
  if (!m.deterministic) threads_.emplace_back([&m] { run_timer(m); });
}

void VmRun::on_signal(int signal, Terminal& terminal) {
  switch (signal) {
    case SIGCHLD:
      if (core_.reap()) machine_->end.post(End::core_gone);
      break;
    case SIGTSTP:
      terminal.suspend();
      if (core_.running()) ::kill(core_.pid(), SIGSTOP);
      ::kill(::getpid(), SIGSTOP);
      break;
    case SIGCONT:
      terminal.resume();
      if (core_.running()) ::kill(core_.pid(), SIGCONT);
      break;
    default:
      machine_->end.post(End::signal, static_cast<u32>(signal));
      break;
  }
}

void VmRun::await_end(Terminal& terminal) {
  do {  // looks once even if the end is known: a guest that resets without pause is stopped too
    pollfd p[3] = {{machine_->end.fd(), POLLIN, 0}, {signals_.fd(), POLLIN, 0}, {timeout_.get(), POLLIN, 0}};
    const int ready = ::poll(p, 3, perf_map_.open() ? kMapEveryMs : -1);
    update_perf_map();
    if (ready < 0) continue;
    for (int s : signals_.take()) on_signal(s, terminal);
    if (p[2].revents & POLLIN) machine_->end.post(End::timeout);
  } while (!machine_->end.get());
}

// Lets it publish its counters; a core that does not is killed.
void VmRun::stop_core() {
  if (!core_.running()) return;
  machine_->stop_core();
  for (int waited = 0; waited < kStopPatienceMs && !core_.reap(); waited += 2) {
    pollfd p{signals_.fd(), POLLIN, 0};
    ::poll(&p, 1, 2);
    for (int s : signals_.take())
      if (s != SIGCHLD && s != SIGTSTP && s != SIGCONT) {
        machine_->output.cancel();
        machine_->end.post(End::signal, static_cast<u32>(s));
      }
  }
  core_.kill_and_wait();
}

void VmRun::stop_service() {
  MachineState& m = *machine_;
  {
    std::lock_guard guard{m.lock};
    m.closing = true;
  }
  m.timer.notify_all();
  const auto reason = m.end.get();
  const bool impatient =
      reason && (reason->end == End::signal || reason->end == End::quit || reason->end == End::timeout);
  if (impatient) m.output.cancel();
  if (m.deterministic && (!reason || reason->end != End::reset))
    m.input.stop();                              // it may wait for input that never comes
  for (u32 i = 0; i < m.channel.vcpus(); i++) {  // the core is gone: nobody else writes these now
    m.channel.vcpu(i).turn.store(static_cast<u32>(core::Turn::closed));
    core::futex_wake(m.channel.vcpu(i).turn);
  }
  m.channel.vm().serial.wake();
  for (auto& t : threads_) t.join();
  threads_.clear();
  std::lock_guard guard{m.lock};
  m.take_posted();  // the core's last bytes
}

// A trace that ended early is worse than none if nobody knows.
void VmRun::complain_of_trace() const {
  const int error = trace_error_ ? trace_error_ : core::trace_error();
  if (error == 0) return;
  const std::string where =
      config_.trace_file.empty() ? "--trace: standard error" : "--trace-file " + config_.trace_file;
  complain(fmt::format("{}: {}: the trace is not complete", where, ::strerror(error)));
}

void VmRun::collect_stats() {
  if (const u32 error = machine_->channel.vm().trace_error) trace_error_ = static_cast<int>(error);
  for (u32 i = 0; i < config_.cpus; i++) {
    const core::VcpuStats s = machine_->channel.vcpu(i).stats;
    auto* sum = reinterpret_cast<u64*>(&stats_[i]);
    const auto* now = reinterpret_cast<const u64*>(&s);
    static_assert(sizeof s % sizeof(u64) == 0);
    for (std::size_t k = 0; k < sizeof s / sizeof(u64); k++) sum[k] += now[k];  // over resets
  }
}

// What the guest has written reaches the reader, unless the user has lost patience.
void VmRun::drain_output() {
  Output& output = machine_->output;
  if (output.empty()) return;
  std::atomic<bool> done{false};
  std::thread impatience{[&] {
    while (!done) {
      pollfd p{signals_.fd(), POLLIN, 0};
      ::poll(&p, 1, 2);
      for (int s : signals_.take())
        if (s != SIGCHLD && s != SIGCONT) output.cancel();
    }
  }};
  output.flush();
  done = true;
  impatience.join();
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

void VmRun::report_executed() const {
  if (!images_.scan_report) return;
  const std::string why =
      write_scan_report(images_.scan_report.get(), images_.executed.get(), config_.kernel, symbols());
  if (!why.empty()) complain(fmt::format("--scan-report {}: {}", config_.scan_report, why));
}

void VmRun::report_verified() const {
  if (!config_.verify) return;
  const core::VcpuStats& s = stats_.front();
  complain(fmt::format("--verify: {} instructions in {} stretches were the same", s.verified_instructions,
                       s.verified_stretches));
}

int VmRun::conclude() {
  const auto reason = machine_->end.get();
  if (const int error = machine_->output.failed(); error && (!reason || reason->end != End::signal))
    return fail(ExitCode::console_lost,
                fmt::format("standard output: {}: the guest's console could not be written", std::strerror(error)));
  switch (reason ? reason->end : End::core_gone) {
    case End::power_off:
      return static_cast<int>(ExitCode::powered_off);
    case End::reset:
      return fail(ExitCode::guest_reset, "the guest asked for a reset, and --no-reboot was given");
    case End::debug_exit:
      return static_cast<int>((reason->value << 1 | 1) & 0xff);
    case End::quit:
      return fail(ExitCode::powered_off, "quit");
    case End::timeout:
      return fail(ExitCode::timeout, fmt::format("--timeout: the guest still ran after {} s", config_.timeout_seconds));
    case End::signal:
      return fail(static_cast<ExitCode>(128 + reason->value),
                  fmt::format("ended by SIG{}", ::sigabbrev_np(static_cast<int>(reason->value))));
    case End::console_lost:
    case End::core_gone:
      return conclude_core();
  }
  return static_cast<int>(ExitCode::internal_error);
}

// The core ended on its own: its report says why; without one, the way it died.
int VmRun::conclude_core() {
  const LastWords words = read_report(machine_->channel.vm().report);
  const std::string text = present(words.text, symbols());
  switch (words.kind) {
    case core::EndKind::boot_failed:
      return fail(ExitCode::bad_input, text);
    case core::EndKind::guest_crash:
      return fail(ExitCode::guest_crash, text);
    case core::EndKind::guest_halted:
      return fail(ExitCode::guest_halted, text);
    case core::EndKind::host_memory:
      return fail(ExitCode::host_refused, text + ": free some, or give a smaller --memory");
    case core::EndKind::host_refused:
      return fail(ExitCode::host_refused, text);
    case core::EndKind::internal_error:
      return fail(ExitCode::internal_error, "internal error: " + text);
    case core::EndKind::verify_failed:
      return fail(ExitCode::verify_failed, text + "again: " + config_.rerun);
    default:
      break;
  }
  const int status = core_.wait_status();
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
    return fail(ExitCode::internal_error,
                "internal error: the core made a system call that its sandbox forbids, and was killed");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return fail(ExitCode::host_refused,
                "the core was killed from outside: perhaps the host ran out of memory; give a smaller --memory");
  if (WIFSIGNALED(status))
    return fail(ExitCode::internal_error, fmt::format("internal error: the core died of signal {}", WTERMSIG(status)));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(ExitCode::host_refused,
                "cannot start the core process: the executable cannot be run again; mount /proc");
  return fail(ExitCode::internal_error,
              fmt::format("internal error: the core ended without a report, status {}", WEXITSTATUS(status)));
}

}  // namespace

bool secure_standard_descriptors() {
  bool output_open = true;
  for (int fd : {0, 1, 2}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    if (fd == 1) output_open = false;
    const int null = ::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
    if (null >= 0 && null != fd) {
      ::dup2(null, fd);
      ::close(null);
    }
  }
  return output_open;
}

int run_vm(const machine::Config& config) { return VmRun{config}.run(); }

}  // namespace trapline::monitor
