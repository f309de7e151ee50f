#include "channel/nbd.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

namespace trapline::channel::nbd {

namespace {

constexpr u64 kMagic = 0x4e42444d41474943, kOptionMagic = 0x49484156454f5054, kOptionReply = 0x3e889045565a9;
constexpr u16 kFixedNewstyle = 1, kNoZeroes = 2;
constexpr u32 kGo = 7, kAck = 1, kInfo = 3, kErrorBit = u32{1} << 31;
constexpr u16 kInfoExport = 0, kInfoBlockSize = 3;
constexpr u16 kReadOnly = 1 << 1, kSendFlush = 1 << 2, kSendFua = 1 << 3, kSendTrim = 1 << 5, kSendZeroes = 1 << 6;
constexpr u32 kRequestMagic = 0x25609513, kReplyMagic = 0x67446698;
constexpr int kPatienceMs = 30'000;  // a large image may have to be repaired first

template <class T>
void put(u8* at, T value) {
  for (std::size_t i = 0; i < sizeof value; i++) at[i] = static_cast<u8>(value >> 8 * (sizeof value - 1 - i));
}
template <class T>
T get(const u8* at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof value; i++) value = static_cast<T>(value << 8 | at[i]);
  return value;
}

bool receive(int socket, std::span<u8> to) {
  while (!to.empty()) {
    pollfd ready{socket, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
    const ssize_t n = ::recv(socket, to.data(), to.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) to = to.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

bool send(int socket, std::span<const u8> bytes) {
  return ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

// The flags, then GO for the export without a name, asking for its block sizes: a server may insist on larger ones for
// those who do not.
bool ask(int socket) {
  std::array<u8, 4 + 16 + 8> bytes{};
  put<u32>(&bytes[0], kFixedNewstyle | kNoZeroes);
  put<u64>(&bytes[4], kOptionMagic);
  put<u32>(&bytes[12], kGo);
  put<u32>(&bytes[16], 8);
  put<u16>(&bytes[24], 1);
  put<u16>(&bytes[26], kInfoBlockSize);
  return send(socket, bytes);
}

Export export_of(const u8* info) {
  const u16 flags = get<u16>(info + 8);
  return {.bytes = get<u64>(info),
          .read_only = (flags & kReadOnly) != 0,
          .flushes = (flags & kSendFlush) != 0,
          .fua = (flags & kSendFua) != 0,
          .trims = (flags & kSendTrim) != 0,
          .zeroes = (flags & kSendZeroes) != 0};
}

}  // namespace

Result<Export, std::string> shake_hands(int socket) {
  const auto wrong = [](const char* why) { return Err{std::string{why}}; };
  std::array<u8, 18> hello{};
  if (!receive(socket, hello)) return wrong("it has ended or says nothing");
  if (get<u64>(&hello[0]) != kMagic || get<u64>(&hello[8]) != kOptionMagic ||
      !(get<u16>(&hello[16]) & kFixedNewstyle) || !ask(socket))
    return wrong("it does not speak the NBD protocol");
  std::optional<Export> found;
  for (unsigned replies = 0; replies < 16; replies++) {
    std::array<u8, 20> head{};
    if (!receive(socket, head)) return wrong("it has ended");
    const u32 type = get<u32>(&head[12]), length = get<u32>(&head[16]);
    std::vector<u8> data(std::min<u32>(length, 4096));
    if (get<u64>(&head[0]) != kOptionReply || length > 4096 || !receive(socket, data))
      return wrong("it does not keep to the NBD protocol");
    if (type & kErrorBit) return Err{fmt::format("it refuses: {}", std::string{data.begin(), data.end()})};
    if (type == kAck) return found ? Result<Export, std::string>{*found} : wrong("it does not name the disk's size");
    if (type == kInfo && length >= 12 && get<u16>(&data[0]) == kInfoExport) found = export_of(&data[2]);
  }
  return wrong("it does not keep to the NBD protocol");
}

RequestBytes encode(const Request& request) {
  RequestBytes bytes{};
  put<u32>(&bytes[0], kRequestMagic);
  put<u16>(&bytes[4], request.flags);
  put<u16>(&bytes[6], static_cast<u16>(request.command));
  put<u64>(&bytes[8], request.handle);
  put<u64>(&bytes[16], request.offset);
  put<u32>(&bytes[24], request.length);
  return bytes;
}

std::optional<Reply> decode(const std::array<u8, kReplyBytes>& bytes) {
  if (get<u32>(&bytes[0]) != kReplyMagic) return std::nullopt;
  return Reply{get<u32>(&bytes[4]), get<u64>(&bytes[8])};
}

}  // namespace trapline::channel::nbd
