#include "cli/image_run.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/store.h"

namespace trapline::cli {

namespace {

constexpr const char* kAppend = "root=/dev/vda rw console=ttyS0";
constexpr u16 kFirstPort = 2222, kLastPort = 2299;

bool is_free(u16 port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
  ::close(fd);
  return bound;
}

u16 free_port() {
  for (u16 port = kFirstPort; port <= kLastPort; port++)
    if (is_free(port)) return port;
  return kFirstPort;
}

// For a shell.
std::string quoted(const std::string& word) {
  if (word.find_first_of(" '\"\\$&;()<>|*?#~`!") == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) c == '\'' ? out += "'\\''" : out += c;
  return out + "'";
}

std::string ssh_line(const image::Image& image, u16 port) {
  return fmt::format("ssh -p {} -i {} -o UserKnownHostsFile={} -o HostKeyAlias={} {}@127.0.0.1", port,
                     quoted(image.key()), quoted(image.known_hosts()), image.name, image.user);
}

std::string with_commas_doubled(const std::string& path) {
  std::string out;
  for (const char c : path) out += c == ',' ? std::string{",,"} : std::string{c};
  return out;
}

}  // namespace

Result<std::vector<std::string>, std::string> resolve_image(RunOptions& o) {
  std::vector<std::string> lines;
  machine::Config& c = o.config;
  if (c.kernel.empty() || c.kernel.find('/') != std::string::npos || ::access(c.kernel.c_str(), F_OK) == 0)
    return lines;
  const auto store = image::Store::open();
  const auto image = store ? store->find(c.kernel) : Result<image::Image, std::string>{Err{store.error()}};
  if (!image)
    return Err{fmt::format("run {}: no such file, and no such image: trapline image ls lists them", c.kernel)};
  c.what = "image " + image->name;
  c.stem = image->name;
  o.network_seed = image->name;
  c.kernel = image->vmlinuz();
  if (c.initrd.empty() && ::access(image->initrd().c_str(), F_OK) == 0) c.initrd = image->initrd();
  c.append = c.append.empty() ? kAppend : fmt::format("{} {}", kAppend, c.append);
  c.rng = true;
  if (o.memory.empty()) o.memory = kImageMemory;
  o.disks.insert(o.disks.begin(), fmt::format("{},format={}{}", with_commas_doubled(image->disk()), image->format,
                                              o.snapshot ? ",snapshot" : ",discard"));
  if (o.networks.empty() && o.clock == "real") {
    const u16 port = free_port();
    o.networks.push_back(fmt::format("user,hostfwd=tcp:127.0.0.1:{}-:22", port));
    lines.push_back(ssh_line(*image, port));
  }
  return lines;
}

}  // namespace trapline::cli
