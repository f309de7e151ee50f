#include "monitor/volume_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <sstream>
#include <utility>

#include "channel/volume_answer.h"
#include "monitor/child_start.h"
#include "monitor/storage/qcow2.h"

namespace trapline::monitor {

namespace {

using Reason = VmError::Reason;

constexpr unsigned kMostPartitions = 128;
constexpr int kPatienceMs = 90'000;  // its processor time ends before

class Child {
 public:
  Child(pid_t pid, Fd lifeline) : pid_{pid}, lifeline_{std::move(lifeline)} {}
  Child(Child&& o) noexcept : pid_{std::exchange(o.pid_, -1)}, lifeline_{std::move(o.lifeline_)} {}
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  // Until it has ended, or is too slow.
  void wait() const {
    const Fd process{static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0))};
    pollfd p{process.get(), POLLIN, 0};
    while (::poll(&p, 1, kPatienceMs) < 0 && errno == EINTR) {
    }
  }

 private:
  pid_t pid_;
  Fd lifeline_;  // it ends with this process
};

// Error: errno.
Result<Child, int> start(std::vector<std::string> words, const std::vector<int>& descriptors) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int lifeline[2] = {-1, -1};
  const bool piped = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lifeline) == 0;
  const pid_t pid = piped ? ::fork() : -1;
  if (pid == 0) become_child(argv.data(), descriptors, lifeline);
  const int error = errno;
  Fd ours{lifeline[1]};
  if (piped) ::close(lifeline[0]);
  if (pid < 0) return Err{int{error}};
  return Child{pid, std::move(ours)};
}

std::string text_of(const Fd& fd) {
  char text[channel::kMostVolumeAnswer];
  const ssize_t n = ::pread(fd.get(), text, sizeof text, 0);
  std::string answer{text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  for (char& c : answer)
    if (static_cast<unsigned char>(c) < ' ' && c != '\n') c = '?';
  return answer;
}

bool is_empty(const Fd& fd) { return ::lseek(fd.get(), 0, SEEK_END) <= 0; }

// `disk`: the image, or with `served` a connection to who has so many bytes of it.
Result<VolumeFiles, VmError> read_from(const std::string& name, const Fd& disk, std::optional<u64> served,
                                       const VolumeWish& wish) {
  const auto wrong = [&](Reason reason, int error, const std::string& said = {}) {
    return Err{VmError{VmError::About::volume, reason, name, error, 0, said}};
  };
  VolumeFiles files;
  const Fd answer{::memfd_create("answer", MFD_CLOEXEC)};
  if (wish.kernel) files.kernel = Fd{::memfd_create("kernel", MFD_CLOEXEC)};
  if (wish.initrd) files.initrd = Fd{::memfd_create("initrd", MFD_CLOEXEC)};
  if (!answer || (wish.kernel && !files.kernel) || (wish.initrd && !files.initrd))
    return wrong(Reason::no_memory, errno);
  std::vector<int> descriptors{disk.get(), answer.get()};
  for (const Fd* fd : {&files.kernel, &files.initrd})
    if (*fd) descriptors.push_back(fd->get());
  auto child = start({"trapline", channel::kVolumeCommand,
                      served ? fmt::format("{}:{}", disk.get(), *served) : std::to_string(disk.get()),
                      std::to_string(files.kernel.get()), std::to_string(files.initrd.get()),
                      std::to_string(answer.get()), wish.kernel_path, wish.initrd_path},
                     descriptors);
  if (!child) return wrong(Reason::no_process, child.error());
  child->wait();
  const std::string text = text_of(answer);
  if (text.starts_with(channel::kVolumeError)) return wrong(Reason::gave_up, 0, text.substr(1, text.find('\n') - 1));
  std::istringstream lines{text};
  unsigned number = 0;
  if (!std::getline(lines, files.kernel_path) || !std::getline(lines, files.initrd_path) ||
      !std::getline(lines, files.root) || !(lines >> number) || number > kMostPartitions)
    return wrong(Reason::ended_early, 0);
  if (!files.root.empty()) files.root_device = number == 0 ? "/dev/vda" : fmt::format("/dev/vda{}", number);
  if (files.initrd && is_empty(files.initrd)) files.initrd = Fd{};
  return files;
}

}  // namespace

Result<VolumeFiles, VmError> read_volume(const machine::DiskConfig& disk, const VolumeWish& wish) {
  const auto wrong = [&](VmError error) {
    error.about = VmError::About::volume, error.value = disk.path;
    return Err{std::move(error)};
  };
  const Fd file{::open(disk.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY)};
  if (!file) return wrong({VmError::About::volume, Reason::cannot_open, {}, errno});
  const auto format = format_of(disk, file.get());
  if (!format) return wrong(format.error());
  if (*format == machine::DiskFormat::raw) return read_from(disk.path, file, {}, wish);
  machine::DiskConfig reading = disk;
  reading.read_only = true, reading.snapshot = reading.discard = false;
  const auto server = serve_qcow2(reading);
  if (!server) return wrong(server.error());
  return read_from(disk.path, server->socket, server->info.bytes, wish);
}

}  // namespace trapline::monitor
