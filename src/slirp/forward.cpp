#include "slirp/forward.h"

#include <arpa/inet.h>

#include <charconv>
#include <vector>

namespace trapline::slirp {

namespace {

bool parse_port(const std::string& text, u16& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::optional<Forward> parse_forward(const std::string& word) {
  std::vector<std::string> parts(1);
  for (const char c : word) {
    if (c == ':')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  Forward f;
  if (parts.size() != 5 || (parts[0] != "tcp" && parts[0] != "udp")) return std::nullopt;
  f.udp = parts[0] == "udp";
  if (::inet_pton(AF_INET, parts[1].c_str(), &f.host) != 1 || !parse_port(parts[2], f.host_port) ||
      ::inet_pton(AF_INET, parts[3].c_str(), &f.guest) != 1 || !parse_port(parts[4], f.guest_port) || f.guest_port == 0)
    return std::nullopt;
  return f;
}

}  // namespace trapline::slirp
