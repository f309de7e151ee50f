#include "compare/guest_run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "base/write.h"
#include "compare/process_memory.h"
#include "monitor/vm.h"
#include "wording/vm_error.h"

namespace trapline::compare {

namespace {

using Clock = std::chrono::steady_clock;
using channel::SensitiveCounts;

constexpr int kSampleMs = 50;                 // of memory
constexpr std::size_t kMostOutput = 8 * MiB;  // that is kept; a guest may write without end

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_{fd} {}
  Fd(Fd&& o) noexcept : fd_{std::exchange(o.fd_, -1)} {}
  Fd& operator=(Fd&&) = delete;
  ~Fd() { close(); }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct Files {
  Fd read_end, write_end, messages, figures, counts;
};

Result<Files, std::string> make_files(u32 vcpus, bool counted) {
  const auto failed = [] { return Err{fmt::format("compare: no memory or descriptors: {}", std::strerror(errno))}; };
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return failed();
  Files files{Fd{ends[0]}, Fd{ends[1]}, Fd{::memfd_create("messages", MFD_CLOEXEC)},
              Fd{::memfd_create("figures", MFD_CLOEXEC)}, Fd{counted ? ::memfd_create("counts", MFD_CLOEXEC) : -1}};
  if (!files.messages || !files.figures || (counted && !files.counts)) return failed();
  if (counted && ::ftruncate(files.counts.get(), static_cast<off_t>(sizeof(SensitiveCounts) * vcpus)) != 0)
    return failed();
  return files;
}

[[noreturn]] void be_the_vm(machine::Config config, const Files& files, bool counted) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(files.write_end.get(), STDOUT_FILENO);
  ::dup2(files.messages.get(), STDERR_FILENO);
  config.figures_fd = files.figures.get(), config.counts_fd = files.counts.get();
  config.stats = counted;
  const monitor::Speaker speaker{[](const std::string& line, int hurry) { say(line, hurry); },
                                 [](const std::string& text, int hurry) { write_all(STDERR_FILENO, text, hurry); },
                                 [](const monitor::VmError& error) { return wording::line(error); }};
  const int code = monitor::run_vm(config, speaker);
  std::fflush(nullptr);
  ::_exit(code);
}

// Lines out of bytes that come in pieces.
class Lines {
 public:
  explicit Lines(GuestRun& run) : run_{run} {}
  void take(std::string_view bytes, double now) {
    for (const char c : bytes) {
      if (kept_ == kMostOutput) {
        run_.cut = true;
        return;
      }
      kept_++;
      if (c != '\n') {
        open_ += c;
        continue;
      }
      end_line(now);
    }
  }
  void finish(double now) {
    if (!open_.empty()) end_line(now);
  }

 private:
  void end_line(double now) {
    if (open_.ends_with('\r')) open_.pop_back();
    run_.lines.push_back({now, std::move(open_)});
    open_.clear();
  }
  GuestRun& run_;
  std::string open_;
  std::size_t kept_ = 0;
};

// Until the process has closed its output, which is when it has ended.
void follow(pid_t child, int from, Clock::time_point start, GuestRun& run) {
  const auto now = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  Lines lines{run};
  char buffer[65536];
  Clock::time_point sample = start;
  for (;;) {
    pollfd p{from, POLLIN, 0};
    ::poll(&p, 1, kSampleMs);
    if (Clock::now() >= sample) {
      if (const auto memory = anonymous_memory(child)) run.memory = std::max(run.memory.value_or(0), *memory);
      sample = Clock::now() + std::chrono::milliseconds{kSampleMs};
    }
    if (!(p.revents & (POLLIN | POLLHUP | POLLERR))) continue;
    const ssize_t n = ::read(from, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    lines.take({buffer, static_cast<std::size_t>(n)}, now());
  }
  lines.finish(now());
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; text.size() < MiB && (n = ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  return text;
}

// The core has written them: whatever they are, they are numbers.
std::optional<SensitiveCounts> read_counts(int fd, u32 vcpus) {
  SensitiveCounts sum{}, one;
  for (u32 v = 0; v < vcpus; v++) {
    if (::pread(fd, &one, sizeof one, static_cast<off_t>(v * sizeof one)) != sizeof one) return std::nullopt;
    auto* to = &sum.times[0][0][0];
    const auto* from = &one.times[0][0][0];
    for (std::size_t i = 0; i < sizeof one / sizeof(u64); i++) to[i] += from[i];
  }
  return sum;
}

double seconds_of(const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; }

}  // namespace

// The last that is ours: counters and a crash's registers follow it.
std::string GuestRun::last_message() const {
  constexpr std::string_view kName = "trapline: ";
  std::string last;
  std::string_view rest = messages;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.starts_with(kName)) last = line.substr(kName.size());
  }
  return last.empty() ? "it said nothing" : last;
}

Result<GuestRun, std::string> run_guest(const machine::Config& config, bool counted) {
  auto files = make_files(config.cpus, counted);
  if (!files) return Err{files.error()};
  std::fflush(nullptr);
  GuestRun run;
  const Clock::time_point start = Clock::now();
  const pid_t child = ::fork();
  if (child < 0) return Err{fmt::format("compare: no process for the VM: {}", std::strerror(errno))};
  if (child == 0) be_the_vm(config, *files, counted);
  files->write_end.close();
  follow(child, files->read_end.get(), start, run);
  int status = 0;
  rusage used{};
  while (::wait4(child, &status, 0, &used) < 0 && errno == EINTR) {
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  run.cpu_seconds = seconds_of(used.ru_utime) + seconds_of(used.ru_stime);
  run.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  run.messages = read_all(files->messages.get());
  run.figures = monitor::read_figures(files->figures.get());
  if (counted) run.sensitive = read_counts(files->counts.get(), config.cpus);
  return run;
}

}  // namespace trapline::compare
