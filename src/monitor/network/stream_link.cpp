#include "monitor/network/stream_link.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace trapline::monitor {

namespace {

constexpr std::size_t kLength = 4;
constexpr std::size_t kBuffer = 4 * (kLength + devices::virtio::Net::kLargestFrame);

}  // namespace

StreamLink::StreamLink(Fd socket, Segments segments)
    : socket_{std::move(socket)}, segments_{segments}, buffer_(kBuffer) {}

// Whole or not at all, in the order of calls. Waits with poll(), so that stop() is heard.
void StreamLink::send(std::span<const iovec> frame) {
  u64 bytes = 0;
  for (const iovec& v : frame) bytes += v.iov_len;
  u32 length = htonl(static_cast<u32>(bytes));
  std::vector<iovec> all{{&length, sizeof length}};
  all.insert(all.end(), frame.begin(), frame.end());
  for (std::size_t first = 0; first < all.size() && !broken_ && !stopping();) {
    msghdr message{};
    message.msg_iov = &all[first];
    message.msg_iovlen = std::min<std::size_t>(all.size() - first, 1024);
    ssize_t n = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      constexpr int kLookAgainMs = 100;  // has the machine ended?
      pollfd ready{socket_.get(), POLLOUT, 0};
      ::poll(&ready, 1, kLookAgainMs);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) broken_ = true;
    for (; n > 0 && first < all.size(); first++) {
      const auto done = std::min<std::size_t>(static_cast<std::size_t>(n), all[first].iov_len);
      n -= static_cast<ssize_t>(done);
      all[first].iov_base = static_cast<char*>(all[first].iov_base) + done;
      if ((all[first].iov_len -= done) != 0) break;
    }
  }
}

void StreamLink::receive(const Deliver& deliver, const std::function<void()>& closed) {
  while (!stopping()) {
    if (!deliver_buffered(deliver)) {
      if (broken_) break;
      if (!await(-1)) return;
      continue;
    }
    if (!await(socket_.get())) return;
    const ssize_t n = ::recv(socket_.get(), &buffer_[end_], buffer_.size() - end_, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) break;
    if (n > 0) end_ += static_cast<std::size_t>(n);
  }
  if (stopping()) return;
  broken_ = true;
  closed();
  while (await(-1)) {
  }
}

// All whole frames. False: one was not taken, or the length of one cannot be.
bool StreamLink::deliver_buffered(const Deliver& deliver) {
  frames_.clear();
  std::size_t at = first_;
  bool sound = true;
  while (end_ - at >= kLength) {
    u32 length = 0;
    std::memcpy(&length, &buffer_[at], sizeof length);
    length = ntohl(length);
    sound = length <= devices::virtio::Net::kLargestFrame;
    if (!sound || end_ - at < kLength + length) break;
    frames_.emplace_back(&buffer_[at + kLength], length);
    at += kLength + length;
  }
  const std::size_t taken = frames_.empty() ? 0 : deliver(frames_);
  for (std::size_t i = 0; i < taken; i++) first_ += kLength + frames_[i].size();
  if (taken < frames_.size()) return false;
  if (!sound) {
    broken_ = true;
    return false;
  }
  std::memmove(buffer_.data(), &buffer_[first_], end_ - first_);
  end_ -= first_;
  first_ = 0;
  return true;
}

}  // namespace trapline::monitor
