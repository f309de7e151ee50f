#include "monitor/core_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/core_main.h"

namespace trapline::monitor {

namespace {

// Between fork and exec: system calls only.
[[noreturn]] void become_core(char* const argv[], const std::vector<int>& descriptors, int channel_fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int fd : descriptors) ::fcntl(fd, F_SETFD, 0);
  ::fcntl(channel_fd, F_SETFD, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  char* const no_environment[] = {nullptr};
  ::execve("/proc/self/exe", argv, no_environment);
  ::execve(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)), argv, no_environment);  // /proc is not mounted
  ::_exit(127);
}

}  // namespace

Result<void, std::string> CoreProcess::start(const core::Channel& channel, const std::vector<int>& descriptors) {
  std::string words[] = {"trapline", core::kCoreCommand, std::to_string(channel.fd()), std::to_string(channel.vcpus()),
                         std::to_string(::getpid())};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), words[4].data(), nullptr};
  pid_ = ::fork();
  if (pid_ < 0) return Err{std::string{"cannot start the core process: "} + std::strerror(errno)};
  if (pid_ == 0) become_core(argv, descriptors, channel.fd());
  return {};
}

bool CoreProcess::reap() {
  if (pid_ <= 0) return true;
  if (::waitpid(pid_, &status_, WNOHANG) != pid_) return false;
  pid_ = -1;
  return true;
}

void CoreProcess::kill_and_wait() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

}  // namespace trapline::monitor
