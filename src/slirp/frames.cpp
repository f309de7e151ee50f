#include "slirp/frames.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace trapline::slirp {

namespace {
constexpr std::size_t kMostWaiting = 4 << 20;
}

bool Frames::fill() {
  std::memmove(in_.data(), in_.data() + first_, end_ - first_);
  end_ -= first_;
  first_ = 0;
  const ssize_t n = ::recv(socket_, in_.data() + end_, in_.size() - end_, MSG_DONTWAIT);
  if (n > 0) end_ += static_cast<std::size_t>(n);
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

std::optional<std::span<const u8>> Frames::next() {
  u32 length = 0;
  if (end_ - first_ < sizeof length) return std::nullopt;
  std::memcpy(&length, &in_[first_], sizeof length);
  length = ntohl(length);
  if (length > kLargest) {
    broken_ = true;
    return std::nullopt;
  }
  if (end_ - first_ < sizeof length + length) return std::nullopt;
  const std::span<const u8> frame{in_.data() + first_ + sizeof length, length};
  first_ += sizeof length + length;
  return frame;
}

void Frames::send(std::span<const u8> frame) {
  if (out_.size() - sent_ > kMostWaiting || frame.size() > kLargest) return;
  const u32 length = htonl(static_cast<u32>(frame.size()));
  const auto* bytes = reinterpret_cast<const u8*>(&length);
  out_.insert(out_.end(), bytes, bytes + sizeof length);
  out_.insert(out_.end(), frame.begin(), frame.end());
}

void Frames::flush() {
  while (sent_ < out_.size()) {
    const ssize_t n = ::send(socket_, out_.data() + sent_, out_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) break;
    sent_ += static_cast<std::size_t>(n);
  }
  if (sent_ == out_.size()) {
    out_.clear();
    sent_ = 0;
  } else if (sent_ > kMostWaiting) {
    out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
}

}  // namespace trapline::slirp
