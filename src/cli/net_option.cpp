#include "cli/net_option.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <vector>

namespace trapline::cli {

namespace {

using machine::NetConfig;

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

bool is_address(const std::string& text) {
  in_addr ignored{};
  return ::inet_pton(AF_INET, text.c_str(), &ignored) == 1;
}

bool parse_number(const std::string& text, u32 least, u32 most, u32& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number >= least && number <= most;
}

// tcp:127.0.0.1:2222-:22 as QEMU has it; without an address only this host may connect. One word for slirp/forward.h,
// or nothing.
std::string forward_word(const std::string& text) {
  const auto dash = text.find('-');
  if (dash == std::string::npos) return {};
  const auto host = split(text.substr(0, dash), ':'), guest = split(text.substr(dash + 1), ':');
  if (host.size() != 3 || guest.size() != 2 || (host[0] != "tcp" && host[0] != "udp")) return {};
  const std::string host_address = host[1].empty() ? "127.0.0.1" : host[1];
  const std::string guest_address = guest[0].empty() ? "10.0.2.15" : guest[0];
  u32 host_port = 0, guest_port = 0;
  if (!is_address(host_address) || !is_address(guest_address) || !parse_number(host[2], 1, 65535, host_port) ||
      !parse_number(guest[1], 1, 65535, guest_port))
    return {};
  return fmt::format("{}:{}:{}:{}:{}", host[0], host_address, host_port, guest_address, guest_port);
}

// Of one interface: six pairs of hexadecimal digits, the lowest bit of the first one clear.
bool parse_mac(const std::string& text, std::array<u8, 6>& mac) {
  const auto parts = split(text, ':');
  if (parts.size() != mac.size()) return false;
  for (std::size_t i = 0; i < mac.size(); i++) {
    const std::string& p = parts[i];
    const auto [end, error] = std::from_chars(p.data(), p.data() + p.size(), mac[i], 16);
    if (p.size() != 2 || error != std::errc{} || end != p.data() + p.size()) return false;
  }
  return !(mac[0] & 1);
}

// FNV-1a, in the range that QEMU's guests have.
std::array<u8, 6> mac_of(const std::string& seed) {
  u64 hash = 0xcbf29ce484222325;
  for (const char c : seed) hash = (hash ^ static_cast<u8>(c)) * 0x100000001b3;
  return {0x52, 0x54, 0x00, static_cast<u8>(hash >> 40), static_cast<u8>(hash >> 24), static_cast<u8>(hash >> 8)};
}

// What is wrong with the option, or nothing.
std::string take(const std::string& option, NetConfig& net) {
  const auto equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  const bool user = net.kind == NetConfig::Kind::user;
  const bool forwards = user || net.kind == NetConfig::Kind::passt;
  if (user && option == "restrict") {
    net.restricted = true;
  } else if (forwards && name == "hostfwd") {
    const std::string word = forward_word(value);
    if (word.empty()) return fmt::format("hostfwd={}: give tcp:[ADDRESS]:PORT-[ADDRESS]:PORT, or udp", value);
    net.forwards.push_back(word);
  } else if (name == "mac") {
    if (!parse_mac(value, net.mac)) return fmt::format("mac={}: give an address like 52:54:00:12:34:56", value);
  } else if (name == "mtu") {
    if (!parse_number(value, 1280, 65520, net.mtu)) return fmt::format("mtu={}: give 1280 to 65520", value);
  } else if (net.kind == NetConfig::Kind::tap && name == "ifname" && !value.empty()) {
    net.path = value;
  } else if ((net.kind == NetConfig::Kind::socket || net.kind == NetConfig::Kind::vhost_user) && name == "path" &&
             !value.empty()) {
    net.path = value;
  } else {
    return fmt::format("no option {} here: see `man trapline`", option);
  }
  return {};
}

}  // namespace

Result<std::optional<NetConfig>, std::string> parse_net(const std::string& text, const std::string& seed) {
  const auto parts = split(text, ',');
  if (text == "none") return std::optional<NetConfig>{};
  NetConfig net;
  net.mac = mac_of(seed);
  if (parts[0] == "user")
    net.kind = NetConfig::Kind::user;
  else if (parts[0] == "passt")
    net.kind = NetConfig::Kind::passt;
  else if (parts[0] == "tap")
    net.kind = NetConfig::Kind::tap;
  else if (parts[0] == "socket")
    net.kind = NetConfig::Kind::socket;
  else if (parts[0] == "vhost-user")
    net.kind = NetConfig::Kind::vhost_user;
  else
    return Err{fmt::format(
        "--net {}: give user, passt, tap,ifname=NAME, socket,path=PATH, vhost-user,path=PATH or none", text)};
  for (std::size_t i = 1; i < parts.size(); i++)
    if (const std::string wrong = take(parts[i], net); !wrong.empty())
      return Err{fmt::format("--net {}: {}", text, wrong)};
  if (net.kind == NetConfig::Kind::tap && net.path.empty())
    return Err{fmt::format("--net {}: which interface? tap,ifname=NAME", text)};
  if (net.kind == NetConfig::Kind::socket && net.path.empty())
    return Err{fmt::format("--net {}: which socket? socket,path=PATH", text)};
  if (net.kind == NetConfig::Kind::vhost_user && net.path.empty())
    return Err{fmt::format("--net {}: which socket? vhost-user,path=PATH", text)};
  return std::optional{net};
}

}  // namespace trapline::cli
