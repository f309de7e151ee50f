#include "agent/command.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fail.h"
#include "agent/protocol.h"

namespace trapline::agent {

namespace {

[[noreturn]] void become_command(const Config& config) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::umask(config.umask);
  if (::setgroups(config.groups.size(), config.groups.data()) != 0 || ::setgid(config.gid) != 0 ||
      ::setuid(config.uid) != 0) {
    ::dprintf(STDERR_FILENO, "trapline: cannot become user %u: %s\n", config.uid, ::strerror(errno));
    ::_exit(kNotExecutable);
  }
  if (config.directory && ::chdir(config.directory) != 0) {
    ::dprintf(STDERR_FILENO, "trapline: --workdir %s: %s\n", config.directory, ::strerror(errno));
    ::_exit(kNotExecutable);
  }
  ::environ = const_cast<char**>(config.environment.data());
  ::execvp(config.arguments[0], config.arguments.data());
  ::dprintf(STDERR_FILENO, "trapline: %s: %s\n", config.arguments[0], ::strerror(errno));
  ::_exit(errno == ENOENT ? kNotFound : kNotExecutable);
}

Command start_on_terminal(const Config& config) {
  Command c;
  winsize size{config.rows, config.columns, 0, 0};
  c.pid = ::forkpty(&c.output, nullptr, nullptr, &size);
  if (c.pid < 0) fail("no terminal for the command");
  if (c.pid == 0) become_command(config);
  c.input = c.output;
  return c;
}

Command start_on_pipes(const Config& config) {
  int in[2], out[2], err[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) fail("no pipes");
  Command c;
  c.pid = ::fork();
  if (c.pid < 0) fail("no process for the command");
  if (c.pid == 0) {
    ::setsid();
    ::dup2(in[0], STDIN_FILENO), ::dup2(out[1], STDOUT_FILENO), ::dup2(err[1], STDERR_FILENO);
    become_command(config);
  }
  ::close(in[0]), ::close(out[1]), ::close(err[1]);
  c.input = in[1], c.output = out[0], c.error = err[0];
  return c;
}

void do_not_wait(int fd) {
  if (fd < 0) return;
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

}  // namespace

Command start_command(const Config& config) {
  const Command c = config.terminal ? start_on_terminal(config) : start_on_pipes(config);
  do_not_wait(c.input);
  do_not_wait(c.output);
  do_not_wait(c.error);
  return c;
}

void resize(const Command& command, u16 rows, u16 columns) {
  const winsize size{rows, columns, 0, 0};
  if (command.error < 0) ::ioctl(command.output, TIOCSWINSZ, &size);
}

}  // namespace trapline::agent
