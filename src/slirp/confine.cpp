#include "slirp/confine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <initializer_list>

#include "base/types.h"

namespace trapline::slirp {

namespace {

constexpr int kAllowed[] = {
    SCMP_SYS(socket),         SCMP_SYS(bind),         SCMP_SYS(listen),     SCMP_SYS(accept),
    SCMP_SYS(accept4),        SCMP_SYS(connect),      SCMP_SYS(shutdown),   SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),    SCMP_SYS(getsockopt),   SCMP_SYS(setsockopt), SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),       SCMP_SYS(sendmsg),      SCMP_SYS(recvmsg),    SCMP_SYS(ioctl),
    SCMP_SYS(fcntl),          SCMP_SYS(poll),         SCMP_SYS(ppoll),      SCMP_SYS(read),
    SCMP_SYS(write),          SCMP_SYS(readv),        SCMP_SYS(writev),     SCMP_SYS(close),
    SCMP_SYS(fstat),          SCMP_SYS(stat),         SCMP_SYS(newfstatat), SCMP_SYS(lseek),
    SCMP_SYS(futex),          SCMP_SYS(sched_yield),  SCMP_SYS(nanosleep),  SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),  SCMP_SYS(gettimeofday), SCMP_SYS(time),       SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),           SCMP_SYS(exit_group),   SCMP_SYS(brk),        SCMP_SYS(munmap),
    SCMP_SYS(mremap),         SCMP_SYS(madvise),      SCMP_SYS(getrandom),  SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(getpid),     SCMP_SYS(gettid),
    SCMP_SYS(sigaltstack)};

// Of the file system only /etc/resolv.conf, read. A kernel without Landlock leaves that to the filter, which lets files
// be read.
void keep_the_resolver_alone() {
  constexpr u64 kAllAccess = (u64{1} << 13) - 1;  // of the first version
  landlock_ruleset_attr attributes{};
  attributes.handled_access_fs = kAllAccess;
  const int rules = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
  if (rules < 0) return;
  const int file = ::open("/etc/resolv.conf", O_PATH | O_CLOEXEC);
  if (file >= 0) {
    landlock_path_beneath_attr rule{};
    rule.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
    rule.parent_fd = file;
    ::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    ::close(file);
  }
  ::syscall(SYS_landlock_restrict_self, rules, 0);
  ::close(rules);
}

}  // namespace

std::string confine_process() {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  keep_the_resolver_alone();
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ERRNO(EPERM));
  int error = filter ? 0 : -ENOMEM;
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (!error)
      error = ::seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                       conditions.begin());
  };
  for (const int call : kAllowed) allow(call, {});
  const scmp_arg_cmp anonymous{3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS};
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  allow(SCMP_SYS(mmap), {not_executable, anonymous});
  allow(SCMP_SYS(mprotect), {not_executable});
  const scmp_arg_cmp reads{2, SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY};
  allow(SCMP_SYS(openat), {reads});
  if (!error) error = ::seccomp_load(filter);
  if (filter) ::seccomp_release(filter);
  return error ? fmt::format("no seccomp filter: {}", ::strerror(-error)) : std::string{};
}

}  // namespace trapline::slirp
