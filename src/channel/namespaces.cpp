#include "channel/namespaces.h"

#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace trapline::channel {

namespace {

constexpr int kAll = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS;
// An ordinary user needs a user namespace for the others; root may be denied just that one.
constexpr int kTries[] = {CLONE_NEWUSER | kAll, kAll, CLONE_NEWUSER};

pid_t clone_with(int flags) { return static_cast<pid_t>(::syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0)); }

int set_capabilities(unsigned permitted, unsigned inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {{permitted, permitted, inheritable}, {0, 0, 0}};
  return static_cast<int>(::syscall(SYS_capset, &header, data));
}

// The child's exit status says whether its root could be emptied too.
int try_with(int flags) {
  const pid_t pid = clone_with(flags);
  if (pid < 0) return -1;
  if (pid == 0) ::_exit((flags & CLONE_NEWNS) && leave_files() ? 0 : 1);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

pid_t fork_into_namespaces(bool& own_mounts) {
  for (const int flags : kTries) {
    own_mounts = flags & CLONE_NEWNS;
    if (const pid_t pid = clone_with(flags); pid >= 0) return pid;
  }
  own_mounts = false;
  return ::fork();
}

void keep_mount_capability() {
  const unsigned mount = 1u << CAP_SYS_ADMIN;
  if (set_capabilities(mount, mount) == 0) ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0);
}

bool leave_files() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  for (const char* place : {"/tmp", "/proc", "/dev", "/usr"}) {
    constexpr unsigned long kNothing = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (::mount("none", place, "tmpfs", kNothing, "size=4k,nr_inodes=2,mode=555") != 0) continue;
    // pivot_root(2): the old root is stacked upon the new one, and let go.
    return ::chdir(place) == 0 && ::syscall(SYS_pivot_root, ".", ".") == 0 && ::umount2(".", MNT_DETACH) == 0 &&
           ::chdir("/") == 0;
  }
  return false;
}

void drop_capabilities() {
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  set_capabilities(0, 0);
}

std::string own_namespaces() {
  for (const int flags : kTries) {
    const int outcome = try_with(flags);
    if (outcome < 0) continue;
    std::string names;
    if (flags & CLONE_NEWUSER) names = "user";
    if (flags & CLONE_NEWNET) names += names.empty() ? "net, pid, ipc, uts" : ", net, pid, ipc, uts";
    if (outcome == 0) names += ", mount";
    return names;
  }
  return {};
}

}  // namespace trapline::channel
