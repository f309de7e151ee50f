#!/bin/sh
# Surprise: nohup does not protect a program that takes its signals from a signalfd. Linux queues a signal that is
# ignored as long as it is also blocked (kernel/signal.c, sig_ignored: the handler may have changed by the time it is
# unblocked; POSIX leaves it open), and a signalfd wants its signals blocked. So such a program ends on the very SIGHUP
# that it was started to survive, unless it asks at its start which signals are ignored and leaves those out.
# Needs a C compiler. Exit code 0: the host behaves as described; 1: it no longer does; 2: it cannot be tried here.
set -eu
command -v cc >/dev/null && command -v nohup >/dev/null || { echo "no cc or no nohup: not tried" >&2; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/server.c" <<'END'
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
int main(int argc, char** argv) {
  struct sigaction at_start;
  sigaction(SIGHUP, NULL, &at_start);
  sigset_t set;
  sigemptyset(&set);
  if (!(argc > 1 && !strcmp(argv[1], "careful") && at_start.sa_handler == SIG_IGN)) sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, NULL);
  struct pollfd p = {signalfd(-1, &set, SFD_CLOEXEC), POLLIN, 0};
  kill(getpid(), SIGHUP);  /* the terminal goes away */
  int heard = poll(&p, 1, 200) == 1;
  printf("%s, %s\n", at_start.sa_handler == SIG_IGN ? "ignored at the start" : "not ignored", heard ? "heard" : "not heard");
  return 0;
}
END
cc -o "$dir/server" "$dir/server.c"
usual=$(nohup "$dir/server" 2>/dev/null </dev/null)
careful=$(nohup "$dir/server" careful 2>/dev/null </dev/null)
echo "under nohup, SIGHUP in the signalfd: $usual"
echo "under nohup, left out because it was ignored: $careful"
[ "$usual" = "ignored at the start, heard" ] && [ "$careful" = "ignored at the start, not heard" ]
