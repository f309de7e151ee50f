#include "monitor/signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace trapline::monitor {

namespace {

sigset_t handled() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD, SIGTSTP, SIGCONT}) ::sigaddset(&set, s);
  return set;
}

}  // namespace

SignalSource::SignalSource() {
  const sigset_t set = handled();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // inherited as ignored, children would vanish unreported
  ::signal(SIGPIPE, SIG_IGN);  // writes say EPIPE
  ::signal(SIGXFSZ, SIG_IGN);  // and EFBIG
  fd_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

SignalSource::~SignalSource() {
  if (fd_ >= 0) ::close(fd_);
}

std::vector<int> SignalSource::take() {
  std::vector<int> signals;
  signalfd_siginfo info;
  while (::read(fd_, &info, sizeof info) == sizeof info) signals.push_back(static_cast<int>(info.ssi_signo));
  return signals;
}

}  // namespace trapline::monitor
