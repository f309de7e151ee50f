#include "monitor/child_start.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "channel/core_start.h"

namespace trapline::monitor {

void become_child(char** argv, const std::vector<int>& descriptors, const int (&lifeline)[2]) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::close(lifeline[1]);
  pollfd monitor{lifeline[0], 0, 0};
  if (::poll(&monitor, 1, 0) == 1) ::_exit(1);  // it died before the first line
  // A signal to the process group is the monitor's to answer, from the first moment on: it stays ignored over exec.
  channel::ignore_group_signals();
#ifndef __SANITIZE_ADDRESS__
  ::dup2(lifeline[0], STDERR_FILENO);  // what the loader has to say is said by the exit status
#endif
  for (const int fd : descriptors) ::fcntl(fd, F_SETFD, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  char* const no_environment[] = {nullptr};
  ::execve("/proc/self/exe", argv, no_environment);
  ::execve(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)), argv, no_environment);  // no /proc
  ::_exit(127);
}

}  // namespace trapline::monitor
