// The init of a VM that runs one command for `trapline exec`. Linked statically, and all there is in its initramfs but
// for modules. It does what it must and nothing else: each millisecond here is one that the command waits.
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "agent/command.h"
#include "agent/config.h"
#include "agent/fail.h"
#include "agent/pump.h"
#include "agent/system.h"

using namespace trapline::agent;

int main() {
  if (::getpid() != 1) return 2;  // not for anybody else
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &children, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const Config config = read_config();
  errno = 0;
  load_modules(config);
  port = open_port();
  enter_root(config);
  set_up_network(config);
  hand_over_disks(config);
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
  const int signals = ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  const Command command = start_command(config);
  const Finished finished = pump(command, signals);
  ::kill(-1, SIGKILL);
  leave_shares(config);
  say_finished(finished);
  for (;;) ::pause();  // the host ends it
}
