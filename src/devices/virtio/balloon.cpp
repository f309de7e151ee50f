#include "devices/virtio/balloon.h"

#include <array>

namespace trapline::devices::virtio {

namespace {

// 5.5.3
constexpr u64 kDeflateOnOom = 1 << 2, kReporting = 1 << 5;

}  // namespace

Balloon::Balloon(Dma& dma)
    : Backend{{.type = 5,
               .name = "virtio-balloon",
               .class_code = 0x00ff00,
               .features = kDeflateOnOom | kReporting,
               .queues = {128, 128, 128}}},
      dma_{dma} {}

// 5.5.4: the two sizes.
void Balloon::read_config(u64 offset, std::span<u8> out) const { copy_config(Sizes{pages_, actual_}, offset, out); }

void Balloon::write_config(u64 offset, std::span<const u8> in) {
  if (offset != 4 || in.size() != 4) return;
  u32 value = 0;
  std::memcpy(&value, in.data(), sizeof value);
  actual_ = value;
}

void Balloon::set_target(u64 bytes) {
  const u32 pages = static_cast<u32>(std::min<u64>(bytes / kPage, ~u32{0}));
  if (pages_.exchange(pages) != pages) device().config_changed();
}

void Balloon::serve(unsigned index) {
  Queue& q = queue(index);
  serve_all(q, [&](Request&& request) {
    if (index == inflate) take_away(request);
    // 5.5.6.7: the buffers are the free pages.
    if (index == report)
      for (const Segment& s : request.writable()) dma_.give_back(s.at, s.bytes.size());
    q.finish(std::move(request), 0);
  });
}

// Page numbers, 32 bits each; neighbours go together.
void Balloon::take_away(const Request& request) {
  std::array<u32, 256> numbers{};
  u64 first = 0, count = 0;
  const auto flush = [&] {
    if (count != 0) dma_.give_back(Gpa{first * kPage}, count * kPage);
    count = 0;
  };
  for (u64 at = 0; at + 4 <= request.readable_bytes();) {
    const u64 bytes = std::min<u64>(sizeof numbers, (request.readable_bytes() - at) & ~u64{3});
    request.read(at, std::as_writable_bytes(std::span{numbers}.first(bytes / 4)));
    at += bytes;
    for (u64 i = 0; i < bytes / 4; i++) {
      const u64 number = numbers[i];
      if (count != 0 && number + 1 == first) {  // Linux goes downward as often as upward
        first--, count++;
      } else if (count != 0 && number == first + count) {
        count++;
      } else {
        flush();
        first = number, count = 1;
      }
    }
  }
  flush();
}

}  // namespace trapline::devices::virtio
