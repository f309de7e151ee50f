#include "channel/core_start.h"

#include <signal.h>

#include <initializer_list>

namespace trapline::channel {

void ignore_group_signals() {
  for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM,
                      SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT})
    ::signal(s, SIG_IGN);
  for (int s = SIGRTMIN; s <= SIGRTMAX; s++) ::signal(s, SIG_IGN);
}

}  // namespace trapline::channel
