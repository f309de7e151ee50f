#include "monitor/huge_file.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "base/growing_memory.h"

namespace trapline::monitor {

namespace {

// What the child does, which shares memory and descriptors with its parent as one of vfork() does: system calls only.
struct Wish {
  std::string user_map, group_map;
  std::initializer_list<HugeFile> wanted;
  std::vector<Fd>& files;
};

void write_to(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  static_cast<void>(!::write(fd, text, std::strlen(text)));
  ::close(fd);
}

int in_child(void* argument) {
  Wish& wish = *static_cast<Wish*>(argument);
  // An inode's owner must have a name in the namespace (EOVERFLOW).
  write_to("/proc/self/setgroups", "deny");
  write_to("/proc/self/uid_map", wish.user_map.c_str());
  write_to("/proc/self/gid_map", wish.group_map.c_str());
  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  for (const char* place : {"/tmp", "/dev", "/usr"}) {
    if (::mount("guest-ram", place, "tmpfs", MS_NOSUID | MS_NODEV, "huge=always,size=0,nr_inodes=8,mode=700") != 0)
      continue;
    const int folder = ::open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (std::size_t i = 0; i < wish.files.size(); i++) {
      const char* const name = wish.wanted.begin()[i].name;
      wish.files[i] = Fd{::openat(folder, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600)};
      ::unlinkat(folder, name, 0);
    }
    ::close(folder);
    break;
  }
  return 0;
}

bool open_in(int namespaces, Wish& wish) {
  alignas(16) std::array<std::byte, 64 * KiB> stack;
  sigset_t all, old;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &old);
  const pid_t pid = ::clone(in_child, stack.data() + stack.size(),
                            namespaces | CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &wish);
  if (pid > 0)
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  return static_cast<bool>(wish.files.back());
}

u64 number_in(const char* path) {
  std::ifstream in{path};
  u64 value = 0;
  return in >> value ? value : std::numeric_limits<u64>::max();
}

// Of the cgroup that this process is at the top of, as containers are.
u64 left_by_limit() {
  for (const auto& [limit, used] :
       {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const u64 most = number_in(limit);
    if (most == std::numeric_limits<u64>::max()) continue;  // "max", or no such file
    const u64 now = number_in(used);
    return now < most ? most - now : 0;
  }
  return std::numeric_limits<u64>::max();
}

u64 available() {
  std::ifstream in{"/proc/meminfo"};
  for (std::string line; std::getline(in, line);) {
    unsigned long long kib = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) return kib * KiB;
  }
  return 0;
}

}  // namespace

std::vector<Fd> make_huge_files(std::initializer_list<HugeFile> wanted) {
  std::vector<Fd> files(wanted.size());
  Wish wish{fmt::format("{0} {0} 1", ::geteuid()), fmt::format("{0} {0} 1", ::getegid()), wanted, files};
  if (!open_in(CLONE_NEWUSER | CLONE_NEWNS, wish) && (::geteuid() != 0 || !open_in(CLONE_NEWNS, wish))) return {};
  auto next = wanted.begin();
  for (const Fd& file : files) {
    struct stat st {};
    // The size of a block is that of a huge page where the file may have some.
    if (!file || ::fstat(file.get(), &st) != 0 || static_cast<u64>(st.st_blksize) < kHugePage ||
        ::ftruncate(file.get(), static_cast<off_t>(next++->bytes)) != 0)
      return {};
  }
  return files;
}

bool roomy_for(u64 bytes) { return std::min(available(), left_by_limit()) / 5 >= bytes / 4; }

}  // namespace trapline::monitor
