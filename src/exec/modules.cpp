#include "exec/modules.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>

#include "exec/read.h"
#include "packing/unpack.h"

namespace trapline::exec {

namespace {

constexpr u64 kLargestModule = 64 * MiB;

// "kernel/fs/9p/9p.ko.xz": "9p". Dashes and underscores are the same.
std::string name_of(std::string_view path) {
  path = path.substr(path.rfind('/') + 1);
  std::string name{path.substr(0, path.find(".ko"))};
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

template <class Each>
void for_each_line(std::string_view text, Each each) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    if (end > 0) each(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

struct Order {
  std::unordered_map<std::string, std::string_view> known;  // name: its line, PATH: PATHS it depends on
  std::set<std::string> builtin, done;
  std::vector<std::string> paths;

  // The name that is missing, if one is.
  std::optional<std::string> add(const std::string& name) {
    if (builtin.contains(name) || !done.insert(name).second) return std::nullopt;
    const auto at = known.find(name);
    if (at == known.end()) return name;
    const auto colon = at->second.find(':');
    for (std::string_view rest = at->second.substr(colon + 1); !rest.empty();) {
      const auto space = std::min(rest.find(' '), rest.size());
      if (space > 0)
        if (auto missing = add(name_of(rest.substr(0, space)))) return missing;
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
    paths.emplace_back(at->second.substr(0, colon));
    return std::nullopt;
  }
};

constexpr u64 kTail = 40;  // behind a signature

// One that is not packed is left where it is: the page cache of the host has it.
Result<Content, std::string> module_content(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  struct stat st {};
  u8 head[64], tail[kTail];
  if (fd < 0 || ::fstat(fd, &st) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return Err{fmt::format("{}: {}", path, std::strerror(error))};
  }
  const auto size = static_cast<u64>(st.st_size);
  Content whole{fd, size};
  const ssize_t seen = ::pread(fd, head, sizeof head, 0);
  const auto packing = packing::packing_of(packing::Bytes{head, static_cast<std::size_t>(std::max<ssize_t>(seen, 0))});
  if (packing == packing::Packing::none) {
    if (::pread(fd, tail, sizeof tail, static_cast<off_t>(size - kTail)) != static_cast<ssize_t>(sizeof tail))
      return whole;
    const u64 without = unsigned_size(tail, size);
    return without == size ? whole : Content{::dup(fd), without};
  }
  const auto bytes = read_file(path);
  if (!bytes) return Err{bytes.error()};
  auto unpacked = packing::unpack(packing, packing::Bytes{*bytes}, kLargestModule);
  if (!unpacked) return Err{fmt::format("{}: {}", path, unpacked.error())};
  unpacked->resize(unsigned_size(*unpacked, unpacked->size()));
  return Content{std::move(*unpacked)};
}

}  // namespace

Result<std::vector<std::string>, std::string> load_order(std::string_view dependencies, std::string_view builtin,
                                                         std::span<const std::string_view> wanted) {
  Order order;
  for_each_line(builtin, [&](std::string_view line) { order.builtin.insert(name_of(line)); });
  for_each_line(dependencies, [&](std::string_view line) {
    const auto colon = line.find(':');
    if (colon != std::string_view::npos) order.known[name_of(line.substr(0, colon))] = line;
  });
  for (const std::string_view name : wanted)
    if (const auto missing = order.add(name_of(name))) return Err{*missing};
  return std::move(order.paths);
}

Result<std::vector<Module>, std::string> needed_modules(const std::string& directory,
                                                        std::span<const std::string_view> wanted) {
  auto dependencies = read_file(directory + "/modules.dep");
  if (!dependencies) return Err{dependencies.error()};
  const auto builtin = read_file(directory + "/modules.builtin");
  const auto text = [](const std::vector<u8>& bytes) {
    return std::string_view{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  };
  const auto paths = load_order(text(*dependencies), builtin ? text(*builtin) : std::string_view{}, wanted);
  if (!paths) return Err{fmt::format("{}: this kernel has no module {}", directory, paths.error())};
  std::vector<Module> modules;
  for (const std::string& path : *paths) {
    const std::string whole = path.starts_with('/') ? path : directory + "/" + path;
    auto content = module_content(whole);
    if (!content) return Err{content.error()};
    modules.push_back({name_of(path), std::move(*content)});
  }
  return modules;
}

// At the end of the file: the signature, 12 bytes of which the last four are its length (big-endian), and a word.
u64 unsigned_size(std::span<const u8> tail, u64 size) {
  static constexpr std::string_view kWord = "~Module signature appended~\n";
  static_assert(kTail == kWord.size() + 12);
  if (tail.size() < kTail) return size;
  const u8* word = tail.data() + tail.size() - kWord.size();
  if (std::memcmp(word, kWord.data(), kWord.size()) != 0) return size;
  const u64 length = static_cast<u64>(word[-4]) << 24 | word[-3] << 16 | word[-2] << 8 | word[-1];
  return length + kTail <= size ? size - length - kTail : size;
}

}  // namespace trapline::exec
