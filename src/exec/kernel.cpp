#include "exec/kernel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>

namespace trapline::exec {

namespace {

constexpr std::string_view kFetch =
    ": fetch Debian's: /usr/share/trapline/guest-kernel.sh amd64 (of the source tree: "
    "TRAPLINE_CACHE=~/.local/share/trapline scripts/guest-kernel.sh amd64); or name one: --kernel FILE";

// What the init asks the kernel for: src/agent/system.cpp.
constexpr std::string_view kAlways[] = {"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"};

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::vector<std::string> module_places(const std::string& kernel, const std::string& version) {
  return {folder_of(kernel) + "/modules/lib/modules/" + version, folder_of(kernel) + "/modules/" + version,
          "/lib/modules/" + version};
}

std::vector<std::string_view> wanted(const Needs& needs) {
  std::vector<std::string_view> all{std::begin(kAlways), std::end(kAlways)};
  if (needs.network) all.push_back("virtio_net");
  if (needs.disks) all.insert(all.end(), {"virtio_blk", "crc32c_generic", "ext4"});
  return all;
}

Result<Kernel, std::string> with_modules(const std::string& path, const std::string& modules, const Needs& needs) {
  const std::string version = version_of(path);
  if (version.empty()) return Err{fmt::format("{}: not a Linux bzImage that can be read", path)};
  std::vector<std::string> places = module_places(path, version);
  if (!modules.empty()) places = {modules, modules + "/" + version, modules + "/lib/modules/" + version};
  std::string why;
  for (const std::string& place : places) {
    if (::access((place + "/modules.dep").c_str(), R_OK) != 0) continue;
    auto found = needed_modules(place, wanted(needs));
    if (found) return Kernel{path, std::move(*found)};
    if (why.empty()) why = found.error();
  }
  if (why.empty()) why = fmt::format("{}: no modules of {} in {}", path, version, fmt::join(places, ", "));
  return Err{why};
}

std::vector<std::string> own_kernels() {
  utsname u{};
  std::vector<std::string> all;
  if (::uname(&u) == 0) all.push_back(std::string{"/boot/vmlinuz-"} + u.release);
  all.insert(all.end(), {"/boot/vmlinuz", "/vmlinuz"});
  return all;
}

// Where kernels that were fetched are.
std::vector<std::string> cached_kernels() {
  std::vector<std::string> all;
  const auto add = [&](const std::string& cache) { all.push_back(cache + "/kernels/amd64/vmlinuz"); };
  if (const char* cache = ::getenv("TRAPLINE_CACHE"); cache && *cache) add(cache);
  const char* data = ::getenv("XDG_DATA_HOME");
  const char* home = ::getenv("HOME");
  if (data && *data == '/')
    add(std::string{data} + "/trapline");
  else if (home && *home)
    add(std::string{home} + "/.local/share/trapline");
  add("/usr/local/share/trapline");
  add("/usr/share/trapline");
  return all;
}

}  // namespace

std::string version_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return {};
  u8 header[0x210];
  char text[128] = {};
  const bool image =
      ::pread(fd, header, sizeof header, 0) == sizeof header && std::memcmp(header + 0x202, "HdrS", 4) == 0;
  const off_t at = image ? (header[0x20e] | header[0x20f] << 8) + 0x200 : 0;
  const ssize_t length = at > 0x200 ? ::pread(fd, text, sizeof text - 1, at) : 0;
  ::close(fd);
  if (length <= 0) return {};
  const std::string_view words{text};
  const std::string version{words.substr(0, words.find(' '))};
  return version.find('/') == std::string::npos ? version : std::string{};  // it becomes part of a path
}

Result<std::string, std::string> any_kernel() {
  auto places = own_kernels();
  const auto cached = cached_kernels();
  places.insert(places.end(), cached.begin(), cached.end());
  for (const std::string& place : places)
    if (!version_of(place).empty()) return place;
  return Err{fmt::format("no kernel for the VM{}", kFetch)};
}

Result<Kernel, std::string> find_kernel(const std::string& named, const std::string& modules, const Needs& needs) {
  if (!named.empty()) {
    auto kernel = with_modules(named, modules, needs);
    if (kernel) return kernel;
    return Err{fmt::format("--kernel {}: give a kernel with its modules (--modules DIR), or none", kernel.error())};
  }
  auto places = own_kernels();
  const auto cached = cached_kernels();
  places.insert(places.end(), cached.begin(), cached.end());
  std::string why;
  for (const std::string& place : places) {
    if (::access(place.c_str(), R_OK) != 0) continue;
    auto kernel = with_modules(place, modules, needs);
    if (kernel) return kernel;
    if (why.empty()) why = fmt::format(" ({})", kernel.error());
  }
  return Err{fmt::format("no kernel for the VM{}{}", why, kFetch)};
}

}  // namespace trapline::exec
