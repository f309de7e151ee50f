// The life of a VM, on a thread of its own (watch.h): it starts the core and the threads that serve it, sleeps until
// something ends the VM, takes all down again in reverse order, and says what happened. A reset is the same once more
// with the same files.
#include "monitor/vm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>

#include "base/guest_memory.h"
#include "base/host_refused.h"
#include "base/trace.h"
#include "base/write.h"
#include "channel/exit_codes.h"
#include "channel/futex.h"
#include "channel/trace_sink.h"
#include "monitor/conclude.h"
#include "monitor/control.h"
#include "monitor/core_process.h"
#include "monitor/gdb_server.h"
#include "monitor/huge_file.h"
#include "monitor/images.h"
#include "monitor/machine_state.h"
#include "monitor/perf_map.h"
#include "monitor/registry.h"
#include "monitor/reset_limit.h"
#include "monitor/run_figures.h"
#include "monitor/scan_report.h"
#include "monitor/stats.h"
#include "monitor/symbols.h"
#include "monitor/terminal.h"
#include "monitor/thread.h"
#include "monitor/watch.h"

namespace trapline::monitor {

namespace {

struct Memory {
  Fd ram;
  Fd code;  // for the core to give a size and fill; empty: it makes its own, of small pages
};

Result<Memory, std::string> make_memory(const machine::Config& config) {
  constexpr u64 kCode = 64 * MiB;  // of a vCPU, as if all of it were used
  if (config.huge_pages && roomy_for(config.memory + kCode * config.cpus))
    if (auto files = make_huge_files({{"guest-ram", config.memory}, {"translated-code", 0}}); !files.empty())
      return Memory{std::move(files[0]), std::move(files[1])};
  auto small = GuestMemory::create_fd(config.memory);
  if (!small) return Err{small.error()};
  return Memory{Fd{*small}, {}};
}

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kStopPatience{1000};
constexpr milliseconds kHurriedPatience{100};
constexpr std::chrono::seconds kPowerButton{30};  // for a guest to shut down
constexpr const char* kRaiseLimits = ": raise the limits of open files, file size and memory (ulimit -n, -f, -v)";
constexpr milliseconds kMapEvery{500};      // --perf-map
constexpr std::chrono::seconds kSilent{5};  // a guest that has written nothing for so long gets a hint

// A guest's text for a terminal of the user's.
std::string printable_lines(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t') c = ' ';
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

// For the list of VMs: what is booted.
std::string what_runs(const machine::Config& c) {
  if (!c.what.empty()) return c.what;
  if (c.firmware.empty()) return c.kernel;
  if (!c.cdrom.empty()) return c.cdrom;
  return c.disks.empty() ? c.firmware : c.disks.front().path;
}

class VmRun {
 public:
  explicit VmRun(const machine::Config& config) : config_{config} {}
  ~VmRun() {
    if (registry_) registry_->leave(name_);
  }
  int run() {
    return watch_.run([this] {
      const int code = live();
      return config_.command.wanted ? code_of_command(code) : code;
    });
  }

 private:
  int live();
  Result<void, std::string> enter_registry();
  int console_fd() const;
  void start_control();
  std::string answer(std::string_view request);
  int code_of_command(int code);
  void start_input();
  Result<void, std::string> shares_ready();
  std::optional<std::chrono::seconds> pass_on(int signal);
  int run_machine();
  void lives();
  bool starts_over();
  Result<void, std::string> power_on();
  void start_service();
  void await_end();
  void give_hint();
  void stop_core();
  void stop_service();
  void collect_stats();
  void complain(const std::string& text) { say(text, hurry_.fd()); }
  void complain_if(const std::string& text) {
    if (!text.empty()) complain(text);
  }
  int fail(ExitCode code, const std::string& text) {
    complain(text);
    return static_cast<int>(code);
  }
  void complain_of_trace();
  void update_perf_map();
  void report_executed();
  void report_verified();
  void report_figures();
  void start_debugger();
  void end_debugger(int code);
  Symbols symbols() const;

  const machine::Config& config_;
  EndEvent end_;
  Event hurry_;  // the user has lost patience: nothing waits for slow readers any more
  CoreProcess core_;
  Terminal terminal_;
  Watch watch_{{end_, hurry_, core_, terminal_, [this](int signal) { return pass_on(signal); }},
               config_.timeout_seconds};
  TscMeasurement tsc_;
  u64 tsc_khz_ = 0;
  std::optional<Registry> registry_;
  Fd entry_;  // in it, while open
  std::string name_;
  Images images_;
  PerfMap perf_map_;
  std::optional<Symbols> symbols_;  // once they are wanted
  Attachments attachments_;
  bool button_pressed_ = false;            // Watch's
  std::atomic<bool> command_runs_{false};  // attachments_.command may be asked by Watch's thread
  std::unique_ptr<MachineState> machine_;
  Fd gdb_listener_;
  std::unique_ptr<gdb::Server> gdb_;
  std::unique_ptr<ControlSocket> control_;
  std::vector<std::thread> threads_;
  std::vector<channel::VcpuStats> stats_;
  ResetLimit resets_;
  int trace_error_ = 0;  // the core's
  bool hinted_ = false;
  steady_clock::time_point started_;
};

int VmRun::live() {
  tsc_.begin();
  auto images = Images::open(config_);
  if (!images) return fail(ExitCode::bad_input, images.error());
  images_ = std::move(*images);
  if (config_.debugged()) {
    const bool path = !config_.gdb_socket.empty();
    auto listener = path ? gdb::listen_on_path(config_.gdb_socket) : gdb::listen_on_loopback(config_.gdb_port);
    if (!listener) return fail(ExitCode::bad_input, listener.error());
    gdb_listener_ = std::move(*listener);
    if (config_.gdb_wait)
      complain(fmt::format("waiting for a debugger: target remote {}",
                           path ? config_.gdb_socket : fmt::format("localhost:{}", config_.gdb_port)));
  }
  std::vector<OpenDisk> disks;
  for (const machine::DiskConfig& disk : config_.disks) {
    auto opened = open_disk(disk);
    if (!opened) return fail(ExitCode::bad_input, opened.error());
    disks.push_back(std::move(*opened));
  }
  std::vector<OpenNetwork> networks;
  for (const machine::NetConfig& network : config_.networks) {
    auto opened = open_network(network);
    if (!opened) return fail(ExitCode::bad_input, opened.error());
    networks.push_back(std::move(*opened));
  }
  BoardParts board{std::move(images_.vga_bios), nullptr};
  if (!config_.cdrom.empty()) {
    auto opened = CdFile::open(config_.cdrom);
    if (!opened) return fail(ExitCode::bad_input, opened.error());
    board.cd = std::move(*opened);
  }
  trace::mask = config_.trace_mask;
  if (images_.trace) channel::open_trace(images_.trace.get(), hurry_.fd());
  if (auto entered = enter_registry(); !entered) return fail(ExitCode::bad_input, entered.error());
  for (const machine::Share& share : config_.shares) {
    attachments_.shares.push_back(std::make_unique<ShareProcess>());
    if (auto started = attachments_.shares.back()->start(share.path, share.readonly); !started)
      return fail(ExitCode::bad_input, started.error());
  }
  attachments_.complain = [this](const std::string& text) { complain(text); };
  if (config_.command.wanted) attachments_.command = std::make_unique<CommandSession>(end_, hurry_);
  if (config_.vsock.cid != 0) {
    auto vsock = VsockSockets::create(config_.vsock);
    if (!vsock) return fail(ExitCode::bad_input, vsock.error());
    attachments_.vsock = std::move(*vsock);
  }
  machine_ = std::make_unique<MachineState>(config_, console_fd(), ::isatty(STDIN_FILENO) != 0, end_, hurry_,
                                            std::move(disks), std::move(networks), attachments_, std::move(board));
  watch_.machine_begins();
  if (!config_.command.wanted || config_.command.terminal) terminal_.begin();
  return run_machine();
}

// A VM without a name of its own does without, where there is no place for names.
Result<void, std::string> VmRun::enter_registry() {
  auto registry = Registry::open();
  if (!registry) return config_.name.empty() ? Result<void, std::string>{} : Err{registry.error()};
  RunningVm vm{.name = config_.name, .what = what_runs(config_)};
  auto held = registry->enter(vm, config_.stem);
  if (!held) return config_.name.empty() ? Result<void, std::string>{} : Err{held.error()};
  registry_ = std::move(*registry);
  entry_ = std::move(*held);
  name_ = vm.name;
  return {};
}

void VmRun::start_control() {
  if (!registry_) return;
  control_ = std::make_unique<ControlSocket>(
      *registry_, name_, [this](std::string_view request) { return answer(request); },
      [this](ExitCode code, const std::string& text) { machine_->fail(code, text); });
}

// "balloon [BYTES]": "ok TARGET ACTUAL", in bytes, or what is wrong. On the socket's thread.
std::string VmRun::answer(std::string_view request) {
  constexpr std::string_view kBalloon = "balloon";
  if (!request.starts_with(kBalloon)) return "it does not know this request";
  devices::virtio::Balloon* const balloon = machine_->virtio.balloon();
  if (!balloon) return "it has no balloon: start it with --balloon 0";
  if (machine_->deterministic) return "under --clock instructions nothing is done from outside";
  if (std::string_view size = request.substr(kBalloon.size()); !size.empty()) {
    size.remove_prefix(1);
    u64 bytes = 0;
    const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), bytes);
    if (error != std::errc{} || end != size.data() + size.size()) return "no number of bytes";
    if (bytes >= config_.memory) return fmt::format("it has {} MiB of memory: give less", config_.memory / MiB);
    balloon->set_target(bytes);
  }
  return fmt::format("ok {} {}", balloon->target(), balloon->actual());
}

// Where the guest's first serial port goes.
int VmRun::console_fd() const {
  if (!config_.command.wanted) return STDOUT_FILENO;
  return config_.command.verbose ? STDERR_FILENO : -1;
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
  started_ = steady_clock::now();
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
  report_executed();
  complain_of_trace();
  report_verified();
  if (gdb_) end_debugger(end.code);
  report_figures();
  if (config_.stats)
    write_all(STDERR_FILENO, stats_text(stats_, std::chrono::duration<double>(steady_clock::now() - started_).count()),
              hurry_.fd());
  return end.code;
}

// From one power-on to the next, until something other than a reset ends it.
void VmRun::lives() {
  for (bool first = true;; first = false) {
    resets_.started(steady_clock::now());
    if (auto on = power_on(); !on) return machine_->fail(ExitCode::host_refused, on.error());
    start_service();
    if (first) {
      // They have come up beside the core.
      if (auto ready = shares_ready(); !ready) {
        machine_->fail(ExitCode::bad_input, ready.error());
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

Result<void, std::string> VmRun::shares_ready() {
  for (const auto& share : attachments_.shares)
    if (auto ready = share->await_ready(); !ready) return ready;
  return {};
}

void VmRun::start_input() {
  if (attachments_.command) {
    attachments_.command->start();
    command_runs_ = true;
  } else {
    machine_->input.start();
  }
}

// Signals that are for the command, and SIGTERM as a power button, once. Watch's thread.
std::optional<std::chrono::seconds> VmRun::pass_on(int signal) {
  constexpr std::chrono::seconds kForEver{0};
  if (command_runs_) {
    if (signal == SIGWINCH) return attachments_.command->resize(), kForEver;
    return attachments_.command->signal(signal) ? std::optional{kForEver} : std::nullopt;
  }
  if (signal != SIGTERM || config_.command.wanted || machine_->deterministic || std::exchange(button_pressed_, true))
    return std::nullopt;
  std::lock_guard guard{machine_->lock};
  if (machine_->channel.vcpus() == 0) return std::nullopt;  // not yet powered on
  const bool listens = machine_->chipset.press_power_button();
  machine_->publish();
  return listens ? std::optional{kPowerButton} : std::nullopt;
}

bool VmRun::starts_over() {
  if (!end_.take_reset()) return false;
  const auto pause = std::chrono::ceil<milliseconds>(resets_.reset(steady_clock::now()));
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

// Fresh RAM, channel and core process; devices as after RESET.
Result<void, std::string> VmRun::power_on() {
  MachineState& m = *machine_;
  auto channel = channel::Channel::create(config_.cpus);
  if (!channel) return Err{channel.error() + kRaiseLimits};
  auto memory = make_memory(config_);
  if (!memory) return Err{memory.error() + ": give a smaller --memory, or raise the limit of open files (ulimit -n)"};
  const Fd& ram_fd = memory->ram;
  auto device_memory = DeviceMemory::create("devices");
  if (!device_memory) return Err{device_memory.error() + kRaiseLimits};
  channel::Launch launch = images_.launch(config_);
  if (config_.virtio_mmio) launch.virtio_mmio = static_cast<u32>(m.virtio.devices().size());
  launch.ram_fd = ram_fd.get();
  launch.code_memory_fd = memory->code.get();
  launch.devices_fd = device_memory->fd();
  CodeLines code_lines;
  if (m.uses_ram) {
    auto made = CodeLines::create(GuestMemory::frames_of(config_.memory, images_.rom != 0));
    if (!made) return Err{made.error() + kRaiseLimits};
    code_lines = std::move(*made);
    launch.code_fd = code_lines.fd();
  }
  const auto bytes = channel::pack(launch);
  if (bytes.size() > channel::kLaunchBytes)
    return Err{std::string{"--append and module arguments are too long: shorten them"}};
  std::memcpy(channel->launch(), bytes.data(), bytes.size());
  channel::VmPage& page = channel->vm();
  page.launch_length = static_cast<u32>(bytes.size());
  page.start_ns = m.deterministic ? m.time.now_ns() : 0;
  m.attach(std::move(*channel), std::move(*device_memory));
  if (m.uses_ram) {
    auto own = GuestMemory::map(ram_fd.get(), config_.memory, {0, config_.display()});
    if (!own) return Err{own.error() + ": give a smaller --memory"};
    m.virtio.dma().attach(std::move(*own), std::move(code_lines), page.code_writes);
  }
  if (gdb_) gdb_->core_starting(m.channel);
  auto descriptors = images_.inherited();
  descriptors.push_back(ram_fd.get());
  descriptors.push_back(m.device_memory.fd());
  for (const int fd : {launch.code_fd, launch.code_memory_fd})
    if (fd >= 0) descriptors.push_back(fd);
  if (auto started = core_.start(m.channel, descriptors, config_.perf_map); !started) return started;
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
  channel::futex_wake(page.clock_ready);
  return {};
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
    if (!hinted_) rest = std::chrono::ceil<milliseconds>(started_ + kSilent - steady_clock::now());
    if (perf_map_.open()) rest = hinted_ ? kMapEvery : std::min(rest, kMapEvery);
    pollfd p{end_.fd(), POLLIN, 0};
    ::poll(&p, 1, static_cast<int>(hinted_ && !perf_map_.open() ? -1 : std::max(rest, milliseconds{0}).count()));
    update_perf_map();
    give_hint();
  }
  if (const auto reason = end_.get(); reason && reason->end == End::quit) hurry_.set();
}

// A kernel that was not told of the serial port is the commonest reason for a screen that stays empty.
void VmRun::give_hint() {
  if (hinted_ || steady_clock::now() < started_ + kSilent) return;
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

// Lets it publish its counters; a core that does not is killed. Nobody who is in a hurry waits for what comes after.
void VmRun::stop_core() {
  if (!core_.running()) return;
  machine_->stop_core();
  const auto begun = steady_clock::now();
  const channel::Report& words = machine_->channel.vm().report;
  while (!core_.reap() && steady_clock::now() < begun + kStopPatience) {
    const bool said = words.kind.load(std::memory_order_acquire) != 0;
    if (hurry_.is_set() && said && steady_clock::now() > begun + kHurriedPatience) return core_.kill_and_leave();
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

// A trace that ended early is worse than none if nobody knows.
void VmRun::complain_of_trace() {
  const int error = trace_error_ ? trace_error_ : channel::trace_error();
  if (error == 0) return;
  const std::string where =
      config_.trace_file.empty() ? "--trace: standard error" : "--trace-file " + config_.trace_file;
  complain(fmt::format("{}: {}: the trace is not complete", where,
                       error == ECANCELED ? "its reader was too slow" : ::strerror(error)));
}

void VmRun::collect_stats() {
  if (const u32 error = machine_->channel.vm().trace_error) trace_error_ = static_cast<int>(error);
  for (u32 i = 0; i < config_.cpus; i++) {
    const channel::VcpuStats s = machine_->channel.vcpu(i).stats;
    auto* sum = reinterpret_cast<u64*>(&stats_[i]);
    const auto* now = reinterpret_cast<const u64*>(&s);
    static_assert(sizeof s % sizeof(u64) == 0);
    for (std::size_t k = 0; k < sizeof s / sizeof(u64); k++) sum[k] += now[k];  // over resets
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
  auto* sum = reinterpret_cast<u64*>(&figures.sum);
  for (const channel::VcpuStats& vcpu : stats_) {
    const auto* one = reinterpret_cast<const u64*>(&vcpu);
    for (std::size_t k = 0; k < sizeof vcpu / sizeof(u64); k++) sum[k] += one[k];
  }
  (void)write_figures(config_.figures_fd, figures);
}

void VmRun::report_verified() {
  if (!config_.verify) return;
  const channel::VcpuStats& s = stats_.front();
  complain(fmt::format("--verify: {} instructions in {} stretches were the same", s.verified_instructions,
                       s.verified_stretches));
}

[[noreturn]] void on_no_memory() {
  restore_terminal();
  say("the host has no memory left for the monitor: free some");
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

int run_vm(const machine::Config& config) {
  std::set_new_handler(on_no_memory);
  install_terminal_guard();
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  try {
    const int code = VmRun{config}.run();
    gdb::forget_path();
    return code;
  } catch (const HostRefused& refused) {
    say(refused.what());
    return static_cast<int>(config.command.wanted ? ExitCode::vm_failed : ExitCode::host_refused);
  }
}

}  // namespace trapline::monitor
