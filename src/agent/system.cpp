#include "agent/system.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/fail.h"
#include "agent/protocol.h"

namespace trapline::agent {

namespace {

// Where things are while the initramfs is /.
constexpr const char *kLower = "/lower", *kMemory = "/memory", *kNew = "/new";
// The client keeps pages and names of its own: nobody else is expected to change the folder meanwhile.
constexpr const char* kOptions = "trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any";

void make_directories(const char* path) {
  char part[4096];
  for (const char* at = path; at;) {
    at = ::strchr(at + 1, '/');
    const std::size_t length = at ? static_cast<std::size_t>(at - path) : ::strlen(path);
    if (length >= sizeof part) return;
    ::memcpy(part, path, length);
    part[length] = 0;
    ::mkdir(part, 0755);  // it may be there
  }
}

void mount_or_fail(const char* what, const char* where, const char* type, unsigned long flags, const char* options) {
  if (::mount(what, where, type, flags, options) == 0) return;
  char text[256];
  const int error = errno;
  ::snprintf(text, sizeof text, "cannot mount %s (%s) at %s", what, type, where);
  errno = error;
  fail(text);
}

void mount_below_new(const char* what, const char* where, const char* type, unsigned long flags, const char* options) {
  char place[4096];
  ::snprintf(place, sizeof place, "%s%s", kNew, where);
  make_directories(place);
  mount_or_fail(what, place, type, flags, options);
}

void mount_share(const Mount& share) {
  mount_below_new(share.tag, share.path, "9p", share.readonly ? MS_RDONLY : 0, kOptions);
}

void mount_own() {
  mount_below_new("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  mount_below_new("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  mount_below_new("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
  mount_below_new("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620,gid=5");
  mount_below_new("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_below_new("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  mount_below_new("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  ::symlink("/proc/self/fd", "/new/dev/fd");
  ::symlink("/proc/self/fd/0", "/new/dev/stdin");
  ::symlink("/proc/self/fd/1", "/new/dev/stdout");
  ::symlink("/proc/self/fd/2", "/new/dev/stderr");
}

}  // namespace

void load_modules(const Config& config) {
  ::mkdir("/dev", 0755);
  ::mkdir("/sys", 0755);
  ::mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, nullptr);  // the kernel may have done so
  mount_or_fail("sysfs", "/sys", "sysfs", 0, nullptr);
  for (const char* path : config.modules) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (::syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) fail(path);
    ::close(fd);
    ::unlink(path);  // its memory is of no more use
  }
}

void enter_root(const Config& config) {
  for (const char* place : {kLower, kMemory, kNew}) ::mkdir(place, 0755);
  if (config.root_disk)
    mount_or_fail(config.root_disk, kLower, "ext4", MS_RDONLY, "noload");  // nothing is written, no journal either
  else
    mount_or_fail(config.root, kLower, "9p", MS_RDONLY, kOptions);
  mount_or_fail("memory", kMemory, "tmpfs", 0, "mode=755");
  ::mkdir("/memory/upper", 0755);
  ::mkdir("/memory/work", 0755);
  mount_or_fail("root", kNew, "overlay", 0, "lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work");
  mount_own();
  for (const Mount& share : config.shares) mount_share(share);
  if (::chdir(kNew) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 ||
      ::chdir("/") != 0)
    fail("cannot enter the root");
}

namespace {

sockaddr address_of(const char* text) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &in.sin_addr);
  sockaddr generic{};
  ::memcpy(&generic, &in, sizeof in);
  return generic;
}

void bring_up(int fd, const char* name) {
  ifreq request{};
  ::strcpy(request.ifr_name, name);
  request.ifr_flags = IFF_UP;
  ::ioctl(fd, SIOCSIFFLAGS, &request);  // a kernel without networking does without
}

void set_address(int fd, unsigned long what, const char* address) {
  ifreq request{};
  ::strcpy(request.ifr_name, "eth0");
  request.ifr_addr = address_of(address);
  if (::ioctl(fd, what, &request) != 0) fail("eth0");
}

// The host's may be a link to what is not here.
void name_the_resolver(const char* dns) {
  char line[64];
  const int length = ::snprintf(line, sizeof line, "nameserver %s\n", dns);
  ::unlink("/etc/resolv.conf");
  const int fd = ::open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || ::write(fd, line, static_cast<std::size_t>(length)) != length) fail("/etc/resolv.conf");
  ::close(fd);
}

void set_up_interface(int fd, const Config::Network& network) {
  set_address(fd, SIOCSIFADDR, network.address);
  set_address(fd, SIOCSIFNETMASK, network.mask);
  bring_up(fd, "eth0");
  rtentry route{};
  route.rt_dst = address_of("0.0.0.0"), route.rt_genmask = address_of("0.0.0.0");
  route.rt_gateway = address_of(network.gateway);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (::ioctl(fd, SIOCADDRT, &route) != 0) fail("the route through eth0");
  name_the_resolver(network.dns);
}

}  // namespace

void set_up_network(const Config& config) {
  static constexpr char kHostName[] = "trapline";
  ::sethostname(kHostName, sizeof kHostName - 1);
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bring_up(fd, "lo");
  if (config.network.address) set_up_interface(fd, config.network);
  ::close(fd);
}

void hand_over_disks(const Config& config) {
  for (char letter = 'a'; letter <= 'z'; letter++) {
    const char path[] = {'/', 'd', 'e', 'v', '/', 'v', 'd', letter, 0};
    if (::chown(path, config.uid, config.gid) != 0) return;
  }
}

namespace {

// /sys/class/virtio-ports/vportNpM/name
bool is_port(const char* device) {
  char path[512], name[64] = {};
  ::snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", device);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t n = ::read(fd, name, sizeof name - 1);
  ::close(fd);
  return n > 0 && ::strncmp(name, kPortName, ::strlen(kPortName)) == 0;
}

int try_open_port() {
  DIR* ports = ::opendir("/sys/class/virtio-ports");
  if (!ports) return -1;
  int fd = -1;
  while (const dirent* entry = ::readdir(ports)) {
    if (entry->d_name[0] == '.' || !is_port(entry->d_name)) continue;
    char path[512];
    ::snprintf(path, sizeof path, "/dev/%s", entry->d_name);
    fd = ::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    break;
  }
  ::closedir(ports);
  return fd;
}

}  // namespace

int open_port() {
  constexpr timespec kPause{0, 2'000'000};
  for (int tries = 0; tries < 5000; tries++) {
    const int fd = try_open_port();
    if (fd >= 0) return fd;
    ::nanosleep(&kPause, nullptr);
  }
  errno = 0;
  fail("the host's port did not come");
}

void leave_shares(const Config& config) {
  ::sync();
  for (auto share = config.shares.rbegin(); share != config.shares.rend(); ++share)
    if (::umount2(share->path, 0) != 0) ::umount2(share->path, MNT_DETACH);
}

}  // namespace trapline::agent
