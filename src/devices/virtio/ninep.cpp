#include "devices/virtio/ninep.h"

#include <cerrno>

namespace trapline::devices::virtio {

namespace {

constexpr u64 kMountTag = 1;  // VIRTIO_9P_MOUNT_TAG
constexpr u8 kLerror = 7;     // Rlerror

struct [[gnu::packed]] ErrorReply {
  u32 size = sizeof(ErrorReply);
  u8 type = kLerror;
  u16 tag;
  u32 error;
};
static_assert(sizeof(ErrorReply) == 11);
constexpr std::size_t kHeader = 7, kTagOffset = 5;

}  // namespace

NineP::NineP(std::string tag, MessageServer& server)
    : Backend{{.type = 9, .name = "virtio-9p", .class_code = 0x018000, .features = kMountTag, .queues = {128}}},
      server_{server} {
  INVARIANT(tag.size() <= kLongestTag, "a tag of {} bytes", tag.size());
  config_.length = static_cast<u16>(tag.size());
  std::memcpy(config_.tag, tag.data(), tag.size());
}

void NineP::read_config(u64 offset, std::span<u8> out) const { copy_config(config_, offset, out); }

void NineP::serve(unsigned index) {
  serve_all(queue(index), [&](Request&& request) {
    const u32 written = answer(request);
    queue(index).finish(std::move(request), written);
  });
}

u32 NineP::answer(Request& request) {
  const u64 length = request.readable_bytes();
  const std::span<u8> room = server_.room();
  if (length < kHeader || length > room.size() || request.writable_bytes() < sizeof(ErrorReply)) return 0;
  const auto message = room.first(length);
  request.read(0, std::as_writable_bytes(message));
  u16 tag = 0;
  std::memcpy(&tag, message.data() + kTagOffset, sizeof tag);
  const auto reply = server_.ask(length);
  if (reply.size() >= kHeader && request.write(0, std::as_bytes(reply))) return static_cast<u32>(reply.size());
  ErrorReply error;
  error.tag = tag;
  error.error = EIO;
  request.write(0, error);
  return sizeof error;
}

}  // namespace trapline::devices::virtio
