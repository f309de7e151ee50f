#include "agent/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <vector>

#include "agent/fail.h"

namespace trapline::agent {

namespace {

// Bytes on their way, the first of them at `begin`.
class Buffer {
 public:
  bool empty() const { return begin_ == bytes_.size(); }
  std::size_t size() const { return bytes_.size() - begin_; }
  const char* data() const { return bytes_.data() + begin_; }
  void add(const void* data, std::size_t count) {
    const char* from = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + count);
  }
  void drop(std::size_t count) {
    begin_ += count;
    if (begin_ == bytes_.size()) bytes_.clear(), begin_ = 0;
    if (begin_ > 64 * KiB)
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_)), begin_ = 0;
  }

 private:
  std::vector<char> bytes_;
  std::size_t begin_ = 0;
};

class Pump {
 public:
  Pump(const Command& command, int signals) : command_{command}, signals_{signals}, input_{command.input} {
    outputs_[0] = {command.output, Stream::output, 0};
    outputs_[1] = {command.error, Stream::error, 0};
  }

  Finished run() {
    frame(Kind::started, Stream::input, nullptr, 0);
    while (!over()) step();
    return finished_;
  }

 private:
  struct Output {
    int fd;
    Stream stream;
    u32 on_the_way;
  };

  bool over() const { return ended_ && outputs_[0].fd < 0 && outputs_[1].fd < 0 && to_host_.empty(); }

  void step() {
    pollfd p[5] = {{port, static_cast<short>(POLLIN | (to_host_.empty() ? 0 : POLLOUT)), 0}, {signals_, POLLIN, 0}};
    for (int i = 0; i < 2; i++) p[2 + i] = {may_read(outputs_[i]) ? outputs_[i].fd : -1, POLLIN, 0};
    p[4] = {input_ >= 0 && !to_command_.empty() ? input_ : -1, POLLOUT, 0};
    // Once the command is gone, what is there is read; who holds the other end still may write for ever.
    if (::poll(p, 5, ended_ ? 0 : -1) < 0 && errno != EINTR) fail("poll");
    if (p[1].revents) reap();
    if (p[0].revents & POLLIN) receive();
    if (p[4].revents) feed();
    for (int i = 0; i < 2; i++)
      if (p[2 + i].revents)
        collect(outputs_[i]);
      else if (ended_ && may_read(outputs_[i]))
        close_output(outputs_[i]);
    flush();
    if (ended_ && !to_host_.empty()) wait_for_host();
    // All that the window allows is on its way: the host says when there is room.
    if (ended_ && to_host_.empty() && !over() && !may_read(outputs_[0]) && !may_read(outputs_[1])) wait_for_host();
  }

  void wait_for_host() {
    pollfd p{port, static_cast<short>(POLLIN | (to_host_.empty() ? 0 : POLLOUT)), 0};
    ::poll(&p, 1, -1);
  }

  static bool may_read(const Output& o) { return o.fd >= 0 && o.on_the_way < kWindow; }

  void frame(Kind kind, Stream stream, const void* payload, u32 length) {
    const Header header{kind, stream, 0, length};
    to_host_.add(&header, sizeof header);
    if (length) to_host_.add(payload, length);
  }

  void flush() {
    while (!to_host_.empty()) {
      const std::size_t most = to_host_.size() < 32 * KiB ? to_host_.size() : 32 * KiB;
      const ssize_t n = ::write(port, to_host_.data(), most);
      if (n <= 0) return;
      to_host_.drop(static_cast<std::size_t>(n));
    }
  }

  void reap() {
    signalfd_siginfo ignored;
    while (::read(signals_, &ignored, sizeof ignored) > 0) {
    }
    int status = 0;
    // Orphans come to process 1 as well.
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != command_.pid) continue;
      ended_ = true;
      finished_ = WIFSIGNALED(status) ? Finished{1, static_cast<u32>(WTERMSIG(status))}
                                      : Finished{0, static_cast<u32>(WEXITSTATUS(status))};
    }
  }

  void collect(Output& o) {
    char bytes[kMostPayload];
    const u32 room = kWindow - o.on_the_way;
    const ssize_t n = ::read(o.fd, bytes, room < sizeof bytes ? room : sizeof bytes);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (ended_) close_output(o);
      return;
    }
    if (n <= 0) return close_output(o);  // a terminal whose other side is closed says EIO
    o.on_the_way += static_cast<u32>(n);
    frame(Kind::data, o.stream, bytes, static_cast<u32>(n));
  }

  void close_output(Output& o) {
    if (o.fd != command_.input) ::close(o.fd);
    o.fd = -1;
    frame(Kind::end, o.stream, nullptr, 0);
  }

  // Input for the command, which may not read it: it waits here, no more than a window of it.
  void feed() {
    const ssize_t n = ::write(input_, to_command_.data(), to_command_.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    const u32 taken = n < 0 ? static_cast<u32>(to_command_.size()) : static_cast<u32>(n);  // nobody reads: it is gone
    to_command_.drop(taken);
    frame(Kind::taken, Stream::input, &taken, sizeof taken);
    if (to_command_.empty() && input_ended_) end_input();
  }

  void end_input() {
    if (input_ < 0) return;
    if (command_.error < 0) {
      termios t;
      const char end = ::tcgetattr(input_, &t) == 0 ? static_cast<char>(t.c_cc[VEOF]) : 4;
      if (::write(input_, &end, 1) < 0) errno = 0;
    } else {
      ::close(input_);
    }
    input_ = -1;
  }

  void receive() {
    char bytes[32 * KiB];
    const ssize_t n = ::read(port, bytes, sizeof bytes);
    if (n == 0) power_off();  // the host has gone
    if (n < 0) return;
    from_host_.add(bytes, static_cast<std::size_t>(n));
    for (Header header; from_host_.size() >= sizeof header;) {
      ::memcpy(&header, from_host_.data(), sizeof header);
      if (from_host_.size() < sizeof header + header.length) return;
      obey(header, from_host_.data() + sizeof header);
      from_host_.drop(sizeof header + header.length);
    }
  }

  void obey(const Header& header, const char* payload) {
    u32 number = 0;
    if (header.length == sizeof number) ::memcpy(&number, payload, sizeof number);
    switch (header.kind) {
      case Kind::data:
        to_command_.add(payload, header.length);
        break;
      case Kind::end:
        for (Output& o : outputs_)  // nobody reads it: the command is to notice
          if (o.stream == header.stream && o.fd >= 0) return close_output(o);
        if (header.stream != Stream::input) break;
        input_ended_ = true;
        if (to_command_.empty()) end_input();
        break;
      case Kind::taken:
        for (Output& o : outputs_)
          if (o.stream == header.stream) o.on_the_way -= number < o.on_the_way ? number : o.on_the_way;
        break;
      case Kind::resize: {
        WindowSize size{};
        ::memcpy(&size, payload, sizeof size);
        resize(command_, size.rows, size.columns);
        break;
      }
      case Kind::signal:
        ::kill(-command_.pid, static_cast<int>(number));
        break;
      default:
        break;
    }
  }

  const Command& command_;
  const int signals_;
  int input_;
  bool input_ended_ = false, ended_ = false;
  Finished finished_{};
  Output outputs_[2];
  Buffer to_host_, from_host_, to_command_;
};

}  // namespace

Finished pump(const Command& command, int signals) { return Pump{command, signals}.run(); }

void say_finished(const Finished& finished) {
  ::fcntl(port, F_SETFL, 0);
  char frame[sizeof(Header) + sizeof finished];
  const Header header{Kind::finished, Stream::output, 0, sizeof finished};
  ::memcpy(frame, &header, sizeof header);
  ::memcpy(frame + sizeof header, &finished, sizeof finished);
  if (::write(port, frame, sizeof frame) < 0) errno = 0;
}

}  // namespace trapline::agent
