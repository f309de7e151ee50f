#include "monitor/watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "monitor/gdb_server.h"
#include "monitor/thread.h"

namespace trapline::monitor {

namespace {
constexpr int kMostPassedOn = 3;
constexpr std::chrono::seconds kPatience{5};  // from an ending signal to an end that waits for nothing

std::string name_of(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}
}  // namespace

Watch::Watch(Shared shared, double timeout_seconds) : s_{shared}, timeout_seconds_{timeout_seconds} {
  if (timeout_seconds > 0) timeout_ = Clock::now() + std::chrono::nanoseconds{static_cast<i64>(timeout_seconds * 1e9)};
}

int Watch::run(const std::function<int()>& life) {
  int code = 0;  // written before done_ is set
  std::thread living = start_thread(
      [&] {
        code = life();
        done_.set();
      },
      [&](ExitCode failure, const std::string& text) {
        s_.terminal.finish();
        s_.tell(text);
        code = static_cast<int>(failure);
        done_.set();
      });
  for (;;) {
    pollfd p[2] = {{done_.fd(), POLLIN, 0}, {signals_.fd(), POLLIN, 0}};
    ::poll(p, 2, wait_ms());
    if (done_.is_set()) break;
    for (const int s : signals_.take()) on_signal(s);
    on_time();
  }
  living.join();
  return code;
}

void Watch::on_signal(int signal) {
  switch (signal) {
    case SIGCHLD:
      if (s_.core.has_ended()) s_.end.post(End::core_gone);
      return;
    case SIGTSTP:
      s_.terminal.suspend();
      s_.pause();
      ::kill(::getpid(), SIGSTOP);
      return;
    case SIGCONT:
      s_.terminal.resume();
      s_.resume();
      s_.core.signal(SIGCONT);  // also if it was stopped by others
      return;
    case SIGWINCH:
      if (s_.pass_on) s_.pass_on(signal);
      return;
    default:
      break;
  }
  // Whoever asks again and again is not heard inside.
  if (const auto patience = s_.pass_on && begun_ && passed_on_ < kMostPassedOn ? s_.pass_on(signal) : std::nullopt) {
    if (signal != SIGUSR1 && signal != SIGUSR2) passed_on_++;
    if (patience->count() > 0) grace_ = Clock::now() + *patience, waits_with_ = signal;
    return;
  }
  grace_.reset();
  int none = 0;
  signal_.compare_exchange_strong(none, signal);
  s_.end.post(End::signal, static_cast<u32>(signal));
  end_soon(128 + signal, fmt::format("ended by {}", name_of(signal)));
}

void Watch::on_time() {
  const auto now = Clock::now();
  if (timeout_ && now >= *timeout_) {
    timeout_.reset();
    s_.end.post(End::timeout);
    end_soon(static_cast<int>(ExitCode::timeout),
             begun_ ? fmt::format("--timeout: the guest still ran after {} s", timeout_seconds_)
                    : fmt::format("--timeout: its files were not read after {} s", timeout_seconds_));
  }
  if (grace_ && now >= *grace_) {
    passed_on_ = kMostPassedOn;
    on_signal(waits_with_);
  }
  if (last_ && now >= *last_) leave(last_code_, last_words_);
}

int Watch::wait_ms() const {
  if (!timeout_ && !last_ && !grace_) return -1;
  const auto never = Clock::time_point::max();
  const auto next = std::min({timeout_.value_or(never), last_.value_or(never), grace_.value_or(never)});
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::clamp<i64>(left, 0, 1'000'000));
}

void Watch::end_soon(int code, const std::string& why) {
  s_.hurry.set();
  if (!begun_) leave(code, why);
  if (last_) return;
  last_ = Clock::now() + kPatience;
  last_code_ = code, last_words_ = why;
}

void Watch::leave(int code, const std::string& why) {
  s_.core.signal(SIGKILL);
  restore_terminal();
  gdb::forget_path();
  s_.tell(why);
  ::_exit(code);
}

}  // namespace trapline::monitor
