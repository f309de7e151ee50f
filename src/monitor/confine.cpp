#include "monitor/confine.h"

#include <fmt/format.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>

#include "base/host_refused.h"
#include "base/types.h"

namespace trapline::monitor {

namespace {

constexpr int kAllowed[] = {
    // Descriptors that are open, and clients that knock.
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(poll), SCMP_SYS(close), SCMP_SYS(accept4),
    SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(setsockopt),
    // Waiting, time, ending.
    SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(sched_getaffinity),
    // malloc() and threads' stacks.
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
    // Dying of a fault of our own: the terminal is restored.
    SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(getpid), SCMP_SYS(gettid),
    SCMP_SYS(getpgrp),
    // Sanitizers, as a thread ends.
    SCMP_SYS(sigaltstack)};

struct Release {
  void operator()(void* filter) const { ::seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, Release>;

// The errno of the first step that fails, in `error`.
Filter make_filter(std::span<const int> more, int& error) {
  Filter filter{::seccomp_init(SCMP_ACT_ERRNO(EPERM))};
  if (!filter && !error) error = ENOMEM;
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (!error)
      error = -::seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                        conditions.begin());
  };
  for (const int call : kAllowed) allow(call, {});
  for (const int call : more) allow(call, {});
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  allow(SCMP_SYS(mmap), {not_executable, {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS}});
  allow(SCMP_SYS(mprotect), {not_executable});
  allow(SCMP_SYS(tgkill), {{0, SCMP_CMP_EQ, static_cast<u64>(::getpid()), 0}});
  for (const u64 request : {u64{TCGETS}, u64{TCSETS}, u64{TIOCGPGRP}})
    allow(SCMP_SYS(ioctl), {{1, SCMP_CMP_MASKED_EQ, 0xffffffff, request}});
  return filter;
}

// A malloc() that fails in the middle is more than libseccomp 2.5.4 survives. Under a limit of address space each of its
// small nodes may take a page.
bool room_for_a_filter() {
  constexpr std::size_t kRoom = 4 << 20;
  void* const room = ::malloc(kRoom);
  ::free(room);
  return room != nullptr;
}

}  // namespace

void confine_thread(std::span<const int> more) {
  static std::mutex mutex;
  std::lock_guard guard{mutex};
  static int common_error = room_for_a_filter() ? 0 : ENOMEM;
  static const Filter common = make_filter({}, common_error);
  int error = common_error;
  Filter own;
  error = room_for_a_filter() ? error : ENOMEM;
  if (!more.empty() && !error) own = make_filter(more, error);
  const Filter& filter = more.empty() ? common : own;
  const int failed = error ? error : -::seccomp_load(filter.get());
  if (failed)
    throw HostRefused{
        fmt::format("no seccomp filter for a thread of the monitor: {}; `trapline doctor` says what this "
                    "host offers, ulimit -v and -d may limit it",
                    ::strerror(failed))};
}

}  // namespace trapline::monitor
