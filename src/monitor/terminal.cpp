#include "monitor/terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>

namespace trapline::monitor {

namespace {

termios g_saved;
std::atomic<bool> g_raw{false};

bool foreground() { return ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

void make_raw() {
  if (!::isatty(STDIN_FILENO) || !foreground() || ::tcgetattr(STDIN_FILENO, &g_saved) != 0) return;
  termios t = g_saved;
  t.c_iflag &= ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  t.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
  t.c_cflag = (t.c_cflag & ~static_cast<tcflag_t>(CSIZE | PARENB)) | CS8;
  t.c_oflag |= OPOST;
  t.c_cc[VMIN] = 1;
  t.c_cc[VTIME] = 0;
  if (::tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0) g_raw = true;
}

void on_fatal(int signal) {
  restore_terminal();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

void restore_terminal() {
  if (g_raw.exchange(false)) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_saved);
}

void install_terminal_guard() {
  for (int s : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) ::signal(s, on_fatal);
}

Terminal::Terminal() { make_raw(); }
Terminal::~Terminal() { restore_terminal(); }
bool Terminal::raw() const { return g_raw; }
void Terminal::suspend() { restore_terminal(); }
void Terminal::resume() { make_raw(); }

}  // namespace trapline::monitor
