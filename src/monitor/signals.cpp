#include "monitor/signals.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/host_refused.h"

namespace trapline::monitor {

namespace {

bool ignored(int signal) {
  struct sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN;
}

sigset_t handled() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF,
                      SIGIO, SIGPWR, SIGSTKFLT, SIGXCPU, SIGWINCH})
    if (!ignored(s)) ::sigaddset(&set, s);
  for (int s = SIGRTMIN; s <= SIGRTMAX; s++)
    if (!ignored(s)) ::sigaddset(&set, s);
  return set;
}

}  // namespace

SignalSource::SignalSource() {
  const sigset_t set = handled();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // inherited as ignored, children would vanish unreported
  ::signal(SIGPIPE, SIG_IGN);  // writes say EPIPE
  ::signal(SIGXFSZ, SIG_IGN);  // and EFBIG
  fd_ = Fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
  if (!fd_)
    throw HostRefused{
        fmt::format("no descriptor for signals: {}: raise the limit of open files (ulimit -n)", std::strerror(errno))};
}

std::vector<int> SignalSource::take() {
  std::vector<int> signals;
  signalfd_siginfo info;
  while (::read(fd_.get(), &info, sizeof info) == sizeof info) signals.push_back(static_cast<int>(info.ssi_signo));
  return signals;
}

}  // namespace trapline::monitor
