#include "share/sandbox.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/types.h"

namespace trapline::share {

namespace {

constexpr u32 kKept =
    1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | 1u << CAP_FSETID;
constexpr u64 kMostMemory = 2 * GiB;

// The rights of Landlock's versions, by their bits (linux/landlock.h).
constexpr u64 kReads = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr u64 kWrites = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                        LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                        LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM;
constexpr u64 kRefer = u64{1} << 13;     // version 2: links and renames from one directory into another
constexpr u64 kTruncate = u64{1} << 14;  // version 3
constexpr u64 kIoctl = u64{1} << 15;     // version 5
constexpr u64 kVersion1 = (u64{1} << 13) - 1;

void keep_few_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return;
  const u32 kept = data[0].permitted & kKept;
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  const __user_cap_data_struct now[2] = {{kept, kept, 0}, {0, 0, 0}};
  ::syscall(SYS_capset, &header, now);
}

// An errno, or 0. Version 1 forbids every link and rename between directories, so it is left alone.
int set_up_landlock(const Confinement& c) {
  const int version = landlock_version();
  if (version < 2) return 0;
  struct {
    u64 files, network, scoped;
  } rules{};
  rules.files = kVersion1 | kRefer | (version >= 3 ? kTruncate : 0) | (version >= 5 ? kIoctl : 0);
  std::size_t size = sizeof rules.files;
  if (version >= 4) rules.network = 3, size = 2 * sizeof(u64);  // bind and connect
  if (version >= 6) rules.scoped = 3, size = sizeof rules;      // abstract sockets and signals
  const int ruleset = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, size, 0));
  if (ruleset < 0) return errno;
  landlock_path_beneath_attr folder{};
  folder.parent_fd = c.folder;
  folder.allowed_access = c.readonly ? kReads : kReads | kWrites | kRefer | (version >= 3 ? kTruncate : 0);
  int error = 0;
  if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &folder, 0) != 0 ||
      ::syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
    error = errno;
  ::close(ruleset);
  return error;
}

constexpr int kAllowed[] = {
    // Files.
    SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
    SCMP_SYS(fstatfs), SCMP_SYS(getdents64), SCMP_SYS(lseek), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
    SCMP_SYS(ftruncate), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(mkdirat), SCMP_SYS(symlinkat),
    SCMP_SYS(mknodat), SCMP_SYS(linkat), SCMP_SYS(renameat), SCMP_SYS(unlinkat), SCMP_SYS(readlinkat), SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat), SCMP_SYS(fchownat), SCMP_SYS(utimensat), SCMP_SYS(getxattr), SCMP_SYS(setxattr),
    SCMP_SYS(listxattr), SCMP_SYS(removexattr), 452 /* fchmodat2 */,
    // Waiting and ending.
    SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(clock_gettime), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(getpid), SCMP_SYS(gettid),
    // malloc().
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(mremap)};

int load_filter() {
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (!filter) return ENOMEM;
  int error = 0;
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (error == 0)
      error = -::seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                        conditions.begin());
  };
  for (const int call : kAllowed) allow(call, {});
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  allow(SCMP_SYS(mmap), {not_executable, {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS}});
  allow(SCMP_SYS(mprotect), {not_executable});
  allow(SCMP_SYS(tgkill), {{0, SCMP_CMP_EQ, static_cast<u64>(::getpid()), 0}});  // abort()
  if (error == 0) error = -::seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  if (error == 0) error = -::seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
  if (error == 0) error = -::seccomp_load(filter);
  ::seccomp_release(filter);
  return error;
}

}  // namespace

int landlock_version() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version > 0 ? static_cast<int>(version) : 0;
}

void harden_process() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  keep_few_capabilities();
  ::prctl(PR_SET_DUMPABLE, 0);
  ::signal(SIGXFSZ, SIG_IGN);  // a write says EFBIG
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__  // its shadow memory is address space
  const rlimit memory{kMostMemory, kMostMemory};
  ::setrlimit(RLIMIT_AS, &memory);
#endif
}

Result<void, std::string> restrict_files(const Confinement& confinement) {
  if (const int error = set_up_landlock(confinement))
    return Err{fmt::format("--share: Landlock cannot be set up: {}: trapline doctor says what this host offers",
                           std::strerror(error))};
  return {};
}

Result<void, std::string> filter_calls() {
  if (const int error = load_filter())
    return Err{fmt::format("--share: no seccomp filter: {}: trapline doctor says what this host offers",
                           std::strerror(error))};
  return {};
}

}  // namespace trapline::share
