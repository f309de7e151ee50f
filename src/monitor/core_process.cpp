#include "monitor/core_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "channel/core_start.h"
#include "channel/namespaces.h"

namespace trapline::monitor {

namespace {

struct Start {
  char** argv;
  const std::vector<int>& descriptors;
  int channel;
  int lifeline[2];  // a pipe: hung up once the monitor is gone
  bool own_mounts;
};

// Between fork and exec: system calls only.
[[noreturn]] void become_core(const Start& start) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::close(start.lifeline[1]);
  pollfd monitor{start.lifeline[0], 0, 0};
  if (::poll(&monitor, 1, 0) == 1) ::_exit(1);  // it died before the first line
  if (start.own_mounts) channel::keep_mount_capability();
  // A signal to the process group is the monitor's to answer, from the first moment on: it stays ignored over exec.
  channel::ignore_group_signals();
#ifndef __SANITIZE_ADDRESS__
  ::dup2(start.lifeline[0], STDERR_FILENO);  // what the loader has to say is said by the exit status
#endif
  for (int fd : start.descriptors) ::fcntl(fd, F_SETFD, 0);
  ::fcntl(start.channel, F_SETFD, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  char* const no_environment[] = {nullptr};
  ::execve("/proc/self/exe", start.argv, no_environment);
  ::execve(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)), start.argv, no_environment);  // no /proc
  ::_exit(127);
}

}  // namespace

Result<void, std::string> CoreProcess::start(const channel::Channel& channel, const std::vector<int>& descriptors,
                                             bool visible) {
  std::string words[] = {"trapline", channel::kCoreCommand, std::to_string(channel.fd()),
                         std::to_string(channel.vcpus()), "0"};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), words[4].data(), nullptr};
  Start start{argv, descriptors, channel.fd(), {-1, -1}, false};
  const bool piped = ::pipe2(start.lifeline, O_CLOEXEC) == 0;
  const pid_t pid = !piped ? -1 : visible ? ::fork() : channel::fork_into_namespaces(start.own_mounts);
  if (pid == 0) {
    if (start.own_mounts) argv[4][0] = '1';
    become_core(start);
  }
  const int error = errno;
  lifeline_ = Fd{start.lifeline[1]};
  if (piped) ::close(start.lifeline[0]);
  if (pid < 0)
    return Err{fmt::format(
        "cannot start the core process: {}: raise the limits of processes and open files (ulimit -u, ulimit -n)",
        std::strerror(error))};
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
