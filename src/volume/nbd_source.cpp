#include "volume/nbd_source.h"

#include <algorithm>

#include "channel/nbd.h"
#include "volume/write_whole.h"

namespace trapline::volume {

namespace nbd = channel::nbd;

namespace {

bool receive(int fd, std::span<u8> to) {
  while (!to.empty()) {
    const ssize_t n = ::read(fd, to.data(), to.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to = to.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

bool NbdSource::read_part(u64 offset, std::span<u8> to) const {
  const u64 handle = ++handle_;
  const auto request = nbd::encode(
      {.command = nbd::Command::read, .handle = handle, .offset = offset, .length = static_cast<u32>(to.size())});
  std::array<u8, nbd::kReplyBytes> head{};
  if (!write_whole(socket_, request) || !receive(socket_, head)) return false;
  const auto reply = nbd::decode(head);
  return reply && reply->handle == handle && reply->error == 0 && receive(socket_, to);
}

bool NbdSource::read(u64 offset, std::span<u8> to) const {
  if (offset > bytes_ || to.size() > bytes_ - offset) return false;
  while (!to.empty() && !broken_) {
    const std::size_t n = std::min<std::size_t>(to.size(), nbd::kMostPayload);
    broken_ = !read_part(offset, to.first(n));
    offset += n;
    to = to.subspan(n);
  }
  return !broken_;
}

}  // namespace trapline::volume
