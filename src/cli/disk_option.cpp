#include "cli/disk_option.h"

#include <fmt/format.h>

#include <vector>

namespace trapline::cli {

namespace {

constexpr std::size_t kLongestSerial = 20;  // VIRTIO 1.2, 5.2.6: what GET_ID has room for

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] != ',')
      parts.back() += text[i];
    else if (i + 1 < text.size() && text[i + 1] == ',')
      parts.back() += text[i++];
    else
      parts.emplace_back();
  }
  return parts;
}

// What is wrong with the option, or nothing.
std::string take(const std::string& option, machine::DiskConfig& disk) {
  const auto equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  const bool given = equals != std::string::npos;
  if (name == "format" && value == "raw")
    disk.format = machine::DiskFormat::raw;
  else if (name == "format" && value == "qcow2")
    disk.format = machine::DiskFormat::qcow2;
  else if (name == "format")
    return fmt::format("format {}: give raw or qcow2", value);
  else if (name == "serial" && !value.empty() && value.size() <= kLongestSerial)
    disk.serial = value;
  else if (name == "serial")
    return fmt::format("serial: give 1 to {} bytes", kLongestSerial);
  else if (name == "readonly" && !given)
    disk.read_only = true;
  else if (name == "snapshot" && !given)
    disk.snapshot = true;
  else if (name == "discard" && !given)
    disk.discard = true;
  else
    return fmt::format("no option {}: give format=raw or qcow2, readonly, snapshot, serial=NAME or discard", option);
  return {};
}

}  // namespace

std::string with_commas_doubled(const std::string& path) {
  std::string out;
  for (const char c : path) out += c == ',' ? std::string{",,"} : std::string{c};
  return out;
}

Result<machine::DiskConfig, std::string> parse_disk(const std::string& text) {
  machine::DiskConfig disk;
  const std::vector<std::string> parts = split(text);
  disk.path = parts[0];
  constexpr std::string_view kVhost = "vhost-user=";
  if (disk.path.starts_with(kVhost)) {
    disk.path.erase(0, kVhost.size());
    disk.vhost_user = true;
    if (disk.path.empty()) return Err{fmt::format("--disk {}: name a socket: --disk vhost-user=SOCKET", text)};
    if (parts.size() > 1)
      return Err{fmt::format("--disk {}: {}: the back end decides that: give it to the back end", text, parts[1])};
    return disk;
  }
  if (disk.path.empty()) return Err{fmt::format("--disk {}: name a file: --disk FILE[,OPTION...]", text)};
  for (std::size_t i = 1; i < parts.size(); i++)
    if (const std::string wrong = take(parts[i], disk); !wrong.empty())
      return Err{fmt::format("--disk {}: {}", text, wrong)};
  if (disk.read_only && disk.snapshot)
    return Err{fmt::format("--disk {}: readonly and snapshot: give one of them", text)};
  return disk;
}

}  // namespace trapline::cli
