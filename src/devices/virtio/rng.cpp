#include "devices/virtio/rng.h"

namespace trapline::devices::virtio {

namespace {
constexpr u64 kMost = 4096;  // in one answer: what a driver asks for is a few cache lines
}

Rng::Rng(Source source)
    : Backend{{.type = 4, .name = "virtio-rng", .class_code = 0x00ff00, .queues = {64}}}, source_{std::move(source)} {}

void Rng::serve(unsigned index) {
  serve_all(queue(index), [&](Request&& request) {
    u32 written = 0;
    for (const Segment& s : request.writable()) {
      const auto part = s.bytes.first(std::min<u64>(s.bytes.size(), kMost - written));
      const std::size_t filled = source_(part);
      written += static_cast<u32>(filled);
      if (filled < s.bytes.size()) break;
    }
    queue(index).finish(std::move(request), written);
  });
}

}  // namespace trapline::devices::virtio
