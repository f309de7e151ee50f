#include "support/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <stdexcept>

namespace trapline::test {

namespace {

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  return ends;
}

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

// What a process of a failed test has said last is most often the reason.
void print_tail(const char* what, const std::string& text) {
  constexpr std::size_t kMost = 2000;
  if (text.empty()) return;
  const std::string tail = text.size() > kMost ? text.substr(text.size() - kMost) : text;
  std::fprintf(stderr, "--- the last of a process's %s:\n%s\n---\n", what, tail.c_str());
}

}  // namespace

Process::Process(const std::vector<std::string>& argv, const Options& options) {
  ::signal(SIGPIPE, SIG_IGN);
  auto in = make_pipe(), out = make_pipe(), err = make_pipe();
  std::vector<char*> args;
  for (const auto& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    ::setpgid(0, 0);
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(options.merge_stderr ? out[1] : err[1], 2);
    for (const auto& e : options.environment) ::putenv(const_cast<char*>(e.c_str()));
    ::execvp(args[0], args.data());
    ::_exit(127);
  }
  ::setpgid(pid_, pid_);
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  in_ = in[1];
  out_ = out[0];
  err_ = err[0];
}

Process::~Process() {
  close_fd(in_);
  if (!reaped_) {
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
  }
  close_fd(out_);
  close_fd(err_);
  if (testing::Test::HasFailure()) print_tail("output", output_), print_tail("errors", errors_);
}

void Process::send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(in_, text.data(), text.size());
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

void Process::close_input() { close_fd(in_); }

void Process::signal(int number) { ::kill(pid_, number); }

bool Process::pump(std::chrono::steady_clock::time_point until) {
  std::array<pollfd, 2> fds{{{out_, POLLIN, 0}, {err_, POLLIN, 0}}};
  if (out_ < 0 && err_ < 0) return false;
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
  if (left <= 0) return false;
  if (::poll(fds.data(), fds.size(), static_cast<int>(left)) <= 0) return false;
  const auto take = [](int& fd, const pollfd& p, std::string& into) {
    if (fd < 0 || !(p.revents & (POLLIN | POLLHUP | POLLERR))) return;
    char buffer[65536];
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n > 0)
      into.append(buffer, static_cast<std::size_t>(n));
    else
      close_fd(fd);
  };
  take(out_, fds[0], output_);
  take(err_, fds[1], errors_);
  return true;
}

bool Process::wait_for(std::string_view text, std::chrono::seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto at = output_.find(text, matched_);
    if (at != std::string::npos) {
      matched_ = at + text.size();
      return true;
    }
    if (!pump(until)) return false;
  }
}

int Process::wait_exit(std::chrono::seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (pump(until)) {
  }
  while (!reaped_) {
    const pid_t r = ::waitpid(pid_, &status_, WNOHANG);
    if (r == pid_) {
      reaped_ = true;
    } else if (std::chrono::steady_clock::now() >= until) {
      ::kill(-pid_, SIGKILL);
      ::waitpid(pid_, &status_, 0);
      reaped_ = true;
      return -1;
    } else {
      ::usleep(2000);
    }
  }
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
}

Finished run(const std::vector<std::string>& argv, std::string_view input, std::chrono::seconds limit,
             const Process::Options& options) {
  Process p{argv, options};
  p.send(input);
  p.close_input();
  const int code = p.wait_exit(limit);
  return {code, p.output(), p.errors()};
}

}  // namespace trapline::test
