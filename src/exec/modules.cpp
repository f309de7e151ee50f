#include "exec/modules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

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
  std::map<std::string, std::pair<std::string, std::vector<std::string>>> known;  // name: path, names it depends on
  std::set<std::string> builtin, done;
  std::vector<std::string> paths;

  // The name that is missing, if one is.
  std::optional<std::string> add(const std::string& name) {
    if (builtin.contains(name) || !done.insert(name).second) return std::nullopt;
    const auto at = known.find(name);
    if (at == known.end()) return name;
    for (const std::string& other : at->second.second)
      if (auto missing = add(other)) return missing;
    paths.push_back(at->second.first);
    return std::nullopt;
  }
};

}  // namespace

Result<std::vector<std::string>, std::string> load_order(std::string_view dependencies, std::string_view builtin,
                                                         std::span<const std::string_view> wanted) {
  Order order;
  for_each_line(builtin, [&](std::string_view line) { order.builtin.insert(name_of(line)); });
  for_each_line(dependencies, [&](std::string_view line) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return;
    auto& [path, others] = order.known[name_of(line.substr(0, colon))];
    path = std::string{line.substr(0, colon)};
    for (std::string_view rest = line.substr(colon + 1); !rest.empty();) {
      const auto space = std::min(rest.find(' '), rest.size());
      if (space > 0) others.push_back(name_of(rest.substr(0, space)));
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
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
    auto bytes = read_file(whole);
    if (!bytes) return Err{bytes.error()};
    if (const auto packing = packing::packing_of(packing::Bytes{*bytes}); packing != packing::Packing::none) {
      auto unpacked = packing::unpack(packing, packing::Bytes{*bytes}, kLargestModule);
      if (!unpacked) return Err{fmt::format("{}: {}", whole, unpacked.error())};
      bytes = std::move(*unpacked);
    }
    strip_signature(*bytes);
    modules.push_back({name_of(path), std::move(*bytes)});
  }
  return modules;
}

// At the end of the file: the signature, 12 bytes of which the last four are its length (big-endian), and a word.
void strip_signature(std::vector<u8>& module) {
  static constexpr std::string_view kWord = "~Module signature appended~\n";
  constexpr std::size_t kInfo = 12;
  if (module.size() < kWord.size() + kInfo) return;
  const u8* word = module.data() + module.size() - kWord.size();
  if (std::memcmp(word, kWord.data(), kWord.size()) != 0) return;
  const std::size_t length = static_cast<std::size_t>(word[-4]) << 24 | word[-3] << 16 | word[-2] << 8 | word[-1];
  const std::size_t all = length + kInfo + kWord.size();
  if (all <= module.size()) module.resize(module.size() - all);
}

}  // namespace trapline::exec
