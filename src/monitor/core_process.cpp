#include "monitor/core_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "channel/core_start.h"
#include "channel/namespaces.h"
#include "monitor/child_start.h"

namespace trapline::monitor {

Result<void, VmError> CoreProcess::start(const channel::Channel& channel, const std::vector<int>& descriptors,
                                         bool visible) {
  std::string words[] = {"trapline", channel::kCoreCommand, std::to_string(channel.fd()),
                         std::to_string(channel.vcpus()), "0"};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), words[4].data(), nullptr};
  std::vector<int> all = descriptors;
  all.push_back(channel.fd());
  int lifeline[2] = {-1, -1};
  bool own_mounts = false;
  const bool piped = ::pipe2(lifeline, O_CLOEXEC) == 0;
  const pid_t pid = !piped ? -1 : visible ? ::fork() : channel::fork_into_namespaces(own_mounts);
  if (pid == 0) {
    if (own_mounts) {
      argv[4][0] = '1';
      channel::keep_mount_capability();
    }
    become_child(argv, all, lifeline);
  }
  const int error = errno;
  lifeline_ = Fd{lifeline[1]};
  if (piped) ::close(lifeline[0]);
  if (pid < 0) return Err{VmError{VmError::About::core, VmError::Reason::no_process, {}, error}};
  std::lock_guard guard{mutex_};
  pid_ = pid;
  return {};
}

bool CoreProcess::running() const {
  std::lock_guard guard{mutex_};
  return pid_ > 0;
}

bool CoreProcess::has_ended() const {
  std::lock_guard guard{mutex_};
  siginfo_t info{};
  return pid_ > 0 && ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

void CoreProcess::signal(int number) const {
  std::lock_guard guard{mutex_};
  if (pid_ > 0) ::kill(pid_, number);
}

bool CoreProcess::reap() {
  std::lock_guard guard{mutex_};
  if (pid_ <= 0) return true;
  if (::waitpid(pid_, &status_, WNOHANG) != pid_) return false;
  pid_ = -1;
  return true;
}

void CoreProcess::kill_and_leave() {
  std::lock_guard guard{mutex_};
  if (pid_ > 0) ::kill(pid_, SIGKILL);
  pid_ = -1;
}

void CoreProcess::kill_and_wait() {
  if (!running()) return;
  signal(SIGKILL);
  siginfo_t info;  // without the mutex, and without taking it from reap()
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  reap();
}

}  // namespace trapline::monitor
