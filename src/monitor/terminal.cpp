#include "monitor/terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace trapline::monitor {

namespace {

termios g_saved, g_ours;
std::atomic<bool> g_raw{false};

bool foreground() { return ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

bool same(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag &&
         std::equal(a.c_cc, a.c_cc + NCCS, b.c_cc);
}

void make_raw() {
  termios now;
  if (!::isatty(STDIN_FILENO) || !foreground() || ::tcgetattr(STDIN_FILENO, &now) != 0) return;
  // Raw by our own doing is not what to go back to: SIGCONT comes to processes that never stopped, too.
  if (g_raw && same(now, g_ours)) return;
  g_saved = now;
  termios t = now;
  t.c_iflag &= ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  t.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
  t.c_cflag = (t.c_cflag & ~static_cast<tcflag_t>(CSIZE | PARENB)) | CS8;
  t.c_oflag |= OPOST;
  t.c_cc[VMIN] = 1;
  t.c_cc[VTIME] = 0;
  if (::tcsetattr(STDIN_FILENO, TCSANOW, &t) != 0) return;
  ::tcgetattr(STDIN_FILENO, &g_ours);  // as the driver has taken it
  g_raw = true;
}

void on_fatal(int signal) {
  restore_terminal();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

void restore_terminal() {
  if (g_raw.exchange(false) && foreground()) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_saved);
}

void install_terminal_guard() {
  for (int s : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS}) ::signal(s, on_fatal);
}

void Terminal::begin() {
  std::lock_guard lock{mutex_};
  wanted_ = true;
  make_raw();
}

void Terminal::suspend() {
  std::lock_guard lock{mutex_};
  restore_terminal();
}

void Terminal::resume() {
  std::lock_guard lock{mutex_};
  if (wanted_) make_raw();
}

void Terminal::finish() {
  std::lock_guard lock{mutex_};
  wanted_ = false;
  restore_terminal();
}

}  // namespace trapline::monitor
