#include "monitor/command_session.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "monitor/thread.h"

namespace trapline::monitor {

using agent::Header;
using agent::Kind;
using agent::Stream;

void CommandSession::start() {
  const auto failed = [this](ExitCode code, const std::string& text) {
    end_.post(End::failed, static_cast<u32>(code), text);
  };
  outputs_[0].thread = start_confined_thread([this] { write_loop(outputs_[0], Stream::output); }, failed);
  outputs_[1].thread = start_confined_thread([this] { write_loop(outputs_[1], Stream::error); }, failed);
  input_thread_ = start_confined_thread([this] { read_loop(); }, failed);
}

void CommandSession::stop() {
  {
    std::lock_guard guard{lock_};
    stopping_ = true;
  }
  wake_.set();
  input_room_.notify_all();
  for (Output& o : outputs_) o.changed.notify_all();
  for (Output& o : outputs_)
    if (o.thread.joinable()) o.thread.join();
  if (input_thread_.joinable()) input_thread_.join();
}

bool CommandSession::signal(int number) {
  std::lock_guard guard{lock_};
  if (state_ != State::running) return false;
  const u32 value = static_cast<u32>(number);
  put(Kind::signal, Stream::input, &value, sizeof value);
  return true;
}

void CommandSession::resize() {
  winsize now{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &now) != 0) return;
  std::lock_guard guard{lock_};
  if (state_ != State::running) return;
  const agent::WindowSize size{now.ws_row, now.ws_col};
  put(Kind::resize, Stream::input, &size, sizeof size);
}

void CommandSession::received(std::span<const std::byte> bytes) {
  const char* text = reinterpret_cast<const char*>(bytes.data());
  from_guest_.insert(from_guest_.end(), text, text + bytes.size());
  std::size_t at = 0;
  for (Header header; from_guest_.size() - at >= sizeof header;) {
    std::memcpy(&header, from_guest_.data() + at, sizeof header);
    if (header.length > agent::kMostPayload || static_cast<unsigned>(header.stream) >= agent::kStreams)
      return nonsense("a frame without sense");
    if (from_guest_.size() - at < sizeof header + header.length) break;
    obey(header, from_guest_.data() + at + sizeof header);
    at += sizeof header + header.length;
  }
  from_guest_.erase(from_guest_.begin(), from_guest_.begin() + static_cast<std::ptrdiff_t>(at));
}

void CommandSession::nonsense(const char* what) {
  from_guest_.clear();
  end_.post(End::failed, static_cast<u32>(ExitCode::vm_failed), fmt::format("the VM's init: {}", what));
}

void CommandSession::obey(const Header& header, const char* payload) {
  switch (header.kind) {
    case Kind::started: {
      std::lock_guard guard{lock_};
      if (state_ == State::booting) state_ = State::running;
      input_room_.notify_all();
      return;
    }
    case Kind::data:
      return take(header.stream, payload, header.length);
    case Kind::taken: {
      u32 count = 0;
      if (header.length != sizeof count) return nonsense("a frame without sense");
      std::memcpy(&count, payload, sizeof count);
      std::lock_guard guard{lock_};
      input_on_the_way_ -= std::min(count, input_on_the_way_);
      input_room_.notify_all();
      return;
    }
    case Kind::finished: {
      if (header.length != sizeof finished_) return nonsense("a frame without sense");
      std::lock_guard guard{lock_};
      if (state_ == State::finished) return;
      std::memcpy(&finished_, payload, sizeof finished_);
      state_ = State::finished;
      conclude();
      return;
    }
    case Kind::failed: {
      std::string why{payload, header.length};
      for (char& c : why)
        if (static_cast<unsigned char>(c) < ' ' || c == 127) c = '?';
      end_.post(End::failed, static_cast<u32>(ExitCode::vm_failed), "the VM's init: " + why);
      return;
    }
    case Kind::end:
      return;  // what is on its way comes before it
    default:
      return nonsense("a frame without sense");
  }
}

void CommandSession::take(Stream stream, const char* data, std::size_t count) {
  if (stream == Stream::input) return nonsense("a frame without sense");
  Output& o = outputs_[stream == Stream::output ? 0 : 1];
  std::lock_guard guard{lock_};
  if (o.bytes + count > agent::kWindow) return nonsense("more than there is room for");
  if (o.lost) return;
  o.waiting.emplace_back(data, data + count);
  o.bytes += count;
  o.changed.notify_one();
}

void CommandSession::write_loop(Output& o, Stream stream) {
  std::unique_lock guard{lock_};
  for (;;) {
    o.changed.wait(guard, [&] { return stopping_ || !o.waiting.empty(); });
    if (o.waiting.empty()) return;
    const std::vector<char> piece = std::move(o.waiting.front());
    o.waiting.pop_front();
    guard.unlock();
    const int error = write_all(o.fd, {piece.data(), piece.size()}, hurry_.fd());
    guard.lock();
    if (error) {  // the command is told as it would be here: nobody reads its pipe any more
      o.lost = true;
      o.waiting.clear();
      o.bytes = 0;
      put(Kind::end, stream, nullptr, 0);
    } else {
      o.bytes -= piece.size();
      const u32 taken = static_cast<u32>(piece.size());
      put(Kind::taken, stream, &taken, sizeof taken);
    }
    conclude();
  }
}

bool CommandSession::conclude() {
  if (state_ != State::finished || outputs_[0].bytes > 0 || outputs_[1].bytes > 0) return false;
  const u32 code = finished_.signalled ? 128 + (finished_.value & 127) : finished_.value & 255;
  return end_.post(End::command, code);
}

// Nothing is read before there is a command, or what was meant for somebody else after it would be lost.
void CommandSession::read_loop() {
  std::vector<char> bytes(agent::kMostPayload);
  for (;;) {
    {
      std::unique_lock guard{lock_};
      input_room_.wait(guard, [&] {
        return stopping_ || (state_ == State::running && input_on_the_way_ + bytes.size() <= agent::kWindow);
      });
      if (stopping_) return;
    }
    pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) return;
    if (p[1].revents) return;
    if (!p[0].revents) continue;
    const ssize_t n = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    std::lock_guard guard{lock_};
    if (n <= 0) return put(Kind::end, Stream::input, nullptr, 0);
    input_on_the_way_ += static_cast<u32>(n);
    put(Kind::data, Stream::input, bytes.data(), static_cast<u32>(n));
  }
}

void CommandSession::put(Kind kind, Stream stream, const void* payload, u32 length) {
  const Header header{kind, stream, 0, length};
  const auto* first = reinterpret_cast<const u8*>(&header);
  to_guest_.insert(to_guest_.end(), first, first + sizeof header);
  const auto* rest = static_cast<const u8*>(payload);
  if (length > 0) to_guest_.insert(to_guest_.end(), rest, rest + length);
  send_waiting();
}

void CommandSession::send_waiting() {
  if (!console_ || to_guest_.empty()) return;
  const std::size_t sent = console_->send(0, to_guest_);
  to_guest_.erase(to_guest_.begin(), to_guest_.begin() + static_cast<std::ptrdiff_t>(sent));
}

void CommandSession::may_send() {
  std::lock_guard guard{lock_};
  send_waiting();
}

}  // namespace trapline::monitor
