#include "scan/archive.h"

#include <fmt/format.h>

#include <charconv>

namespace trapline::scan {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view kMagic = "!<arch>\n";
constexpr u64 kHeader = 60;

std::optional<u64> number(std::string_view field) {
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  u64 value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc{} || end != field.data() + field.size()) return std::nullopt;
  return value;
}

std::string_view text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// "name/" as it stands, "/123" in the table of long names, "#1/20" before the contents.
std::string name_of(std::string_view field, Bytes long_names, Bytes& contents) {
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  if (field.starts_with("#1/")) {
    const auto length = number(field.substr(3));
    const auto name = length ? slice(contents, 0, *length) : std::nullopt;
    if (!name) return {};
    contents = contents.subspan(name->size());
    return std::string{text(*name).substr(0, text(*name).find('\0'))};
  }
  if (field.size() > 1 && field.front() == '/') {
    const auto at = number(field.substr(1));
    const std::string_view from = at ? text(tail(long_names, *at)) : ""sv;
    field = from.substr(0, from.find('\n'));
  }
  if (field.ends_with('/')) field.remove_suffix(1);
  return std::string{field.substr(0, 255)};
}

}  // namespace

bool is_archive(Bytes bytes) { return starts_with(bytes, kMagic); }

Result<std::vector<Member>, std::string> archive_members(Bytes bytes, const Limits& limits) {
  std::vector<Member> members;
  Bytes long_names;
  for (u64 at = kMagic.size(); at < bytes.size();) {
    const auto header = slice(bytes, at, kHeader);
    if (!header || text(*header).substr(58, 2) != "`\n")
      return Err{fmt::format("archive: malformed header at {:#x}", at)};
    const auto size = number(text(*header).substr(48, 10));
    const auto found = size ? slice(bytes, at + kHeader, *size) : std::nullopt;
    if (!found) return Err{fmt::format("archive: truncated: the member at {:#x} goes beyond the end", at)};
    at += kHeader + *size + (*size & 1);
    const std::string_view field = text(*header).substr(0, 16);
    if (field.starts_with("// ")) long_names = *found;
    if (field.starts_with("// ") || field.starts_with("/ ") || field.starts_with("/SYM64/")) continue;
    if (members.size() >= limits.members)
      return Err{fmt::format("archive: more than {} members: unpack it and name files", limits.members)};
    Member member{{}, *found};
    member.name = name_of(field, long_names, member.bytes);
    if (member.name.starts_with("__.SYMDEF")) continue;
    members.push_back(std::move(member));
  }
  return members;
}

}  // namespace trapline::scan
