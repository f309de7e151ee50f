#include "cli/image_run.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "cli/disk_option.h"
#include "image/store.h"
#include "monitor/volume_process.h"
#include "volume/partitions.h"
#include "wording/vm_error.h"

namespace trapline::cli {

namespace {

constexpr u16 kFirstPort = 2222, kLastPort = 2299;

// What the guest calls its console and its first disk.
bool xen(const RunOptions& o) { return o.para == "xen"; }
const char* console(const RunOptions& o) { return xen(o) ? "console=hvc0" : "console=ttyS0"; }
std::string as_named_there(const RunOptions& o, const std::string& device) {
  constexpr std::string_view kVirtio = "/dev/vd";
  return xen(o) && device.starts_with(kVirtio) ? "/dev/xvd" + device.substr(kVirtio.size()) : device;
}

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

bool is_qcow2(const volume::Source& disk) {
  std::array<u8, 4> magic{};
  return disk.read(0, magic) && std::memcmp(magic.data(), "QFI\xfb", 4) == 0;
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

using Lines = Result<std::vector<std::string>, std::string>;

Lines named_image(RunOptions& o) {
  std::vector<std::string> lines;
  machine::Config& c = o.config;
  const auto store = image::Store::open();
  const auto image = store ? store->find(c.kernel) : Result<image::Image, std::string>{Err{store.error()}};
  if (!image)
    return Err{fmt::format("run {}: no such file, and no such image: trapline image ls lists them", c.kernel)};
  if (xen(o) && c.initrd.empty())
    return Err{
        fmt::format("run {}: its initrd has no driver for the disk of a Xen PV guest: use --para kvm, or give "
                    "--initrd",
                    c.kernel)};
  c.what = "image " + image->name;
  c.stem = image->name;
  o.network_seed = image->name;
  c.kernel = image->vmlinuz();
  if (c.initrd.empty() && ::access(image->initrd().c_str(), F_OK) == 0) c.initrd = image->initrd();
  const std::string first = fmt::format("root={} rw {}", as_named_there(o, "/dev/vda"), console(o));
  c.append = c.append.empty() ? first : fmt::format("{} {}", first, c.append);
  c.rng = !xen(o);
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

// A file of the user's that is a disk, not a kernel; its path as --disk has it, then.
bool is_disk_image(const std::string& path) {
  const monitor::Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) return false;
  const volume::FileSource disk{fd.get()};
  return is_qcow2(disk) || volume::looks_like_a_disk(disk);
}

// The path behind "image:", or nothing where the word is another.
std::optional<std::string> path_in_image(const std::string& word) {
  constexpr std::string_view kPrefix = "image:";
  if (!word.starts_with(kPrefix)) return std::nullopt;
  return word.substr(kPrefix.size());
}

std::string read_first_disk(RunOptions& o, const monitor::VolumeWish& wish) {
  machine::Config& c = o.config;
  if (o.disks.empty()) return "--kernel image: of which disk? give --disk FILE";
  const auto disk = parse_disk(o.disks[0]);
  if (disk && disk->vhost_user)
    return "--kernel image: what is on a disk by vhost-user cannot be read here: give --kernel FILE";
  if (!disk) return disk.error();
  auto files = monitor::read_volume(*disk, wish);
  if (!files) return wording::line(files.error());
  if (wish.kernel) c.kernel = disk->path + ":" + files->kernel_path, c.kernel_fd = files->kernel.release();
  if (wish.initrd) c.initrd.clear(), c.initrd_fd = files->initrd.release();
  if (wish.kernel && c.append.find("root=") == std::string::npos && !files->root.empty())
    c.append =
        fmt::format("root={} ro {}{}", as_named_there(o, files->root),
                    c.append.find("console=") == std::string::npos ? console(o) + std::string(" ") : "", c.append);
  return {};
}

}  // namespace

Lines resolve_image(RunOptions& o) {
  machine::Config& c = o.config;
  if (c.kernel.empty()) return std::vector<std::string>{};
  const auto kernel_in = path_in_image(c.kernel), initrd_in = path_in_image(c.initrd);
  const bool exists = ::access(c.kernel.c_str(), F_OK) == 0;
  monitor::VolumeWish wish{kernel_in.has_value(), initrd_in.has_value(), kernel_in.value_or(""),
                           initrd_in.value_or("")};
  if (exists && is_disk_image(c.kernel)) {
    c.what = c.kernel;
    o.network_seed = c.kernel;
    if (o.memory.empty()) o.memory = kImageMemory;
    o.disks.insert(o.disks.begin(), with_commas_doubled(c.kernel) + (o.snapshot ? ",snapshot" : ""));
    wish.kernel = true, wish.initrd = c.initrd.empty() || initrd_in;
  } else if (!exists && !kernel_in && c.kernel.find('/') == std::string::npos) {
    return named_image(o);
  } else if (o.snapshot) {
    return Err{std::string{"--snapshot: no image is run: give --disk FILE,snapshot"}};
  }
  if (wish.kernel || wish.initrd)
    if (std::string wrong = read_first_disk(o, wish); !wrong.empty()) return Err{wrong};
  return std::vector<std::string>{};
}

}  // namespace trapline::cli
