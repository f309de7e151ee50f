#include "cli/vsock_option.h"

#include <fmt/format.h>

#include <charconv>

namespace trapline::cli {

Result<machine::VsockConfig, std::string> parse_vsock(const std::string& text) {
  constexpr u32 kFirst = 3, kAny = ~u32{0};  // 0 to 2 are the hypervisor, one's own and the host
  const auto wrong = [&](const char* why) { return Err{fmt::format("--vsock {}: {}", text, why)}; };
  machine::VsockConfig vsock;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, end - at);
    at = end + 1;
    if (word.starts_with("path=")) {
      vsock.path = word.substr(5);
    } else if (word.starts_with("cid=")) {
      const char *first = word.data() + 4, *last = word.data() + word.size();
      const auto [stop, error] = std::from_chars(first, last, vsock.cid);
      if (error != std::errc{} || stop != last || vsock.cid < kFirst || vsock.cid == kAny)
        return wrong("cid: give a number from 3 to 4294967294");
    } else {
      return wrong("give cid=NUMBER,path=SOCKET");
    }
  }
  if (vsock.cid == 0 || vsock.path.empty()) return wrong("give both: cid=NUMBER,path=SOCKET");
  return vsock;
}

}  // namespace trapline::cli
