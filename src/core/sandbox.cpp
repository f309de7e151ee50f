#include "core/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/invariant.h"
#include "base/types.h"
#include "channel/core_start.h"
#include "channel/namespaces.h"
#include "channel/trace_sink.h"

namespace trapline::core {

namespace {

void limit(int resource, rlim_t value) {
  const rlimit l{value, value};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &l);  // defence in depth: seccomp is the wall
}

// What the kernel counts against `resource` (RLIMIT_DATA, RLIMIT_AS) by now: the least limit under which one page more
// can be mapped. /proc may be out of reach.
u64 in_use(int resource) {
  rlimit before{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &before);
  u64 least = 0, enough = u64{1} << 36;  // pages: 48 bits of address
  while (least < enough) {
    const u64 middle = (least + enough) / 2;
    const rlimit probe{std::min<rlim_t>(middle * kPageSize, before.rlim_max), before.rlim_max};
    ::setrlimit(static_cast<__rlimit_resource>(resource), &probe);
    void* page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) ::munmap(page, kPageSize);
    (page == MAP_FAILED ? least : enough) = page == MAP_FAILED ? middle + 1 : middle;
  }
  ::setrlimit(static_cast<__rlimit_resource>(resource), &before);
  return least * kPageSize;
}

// A second wall: what a guest makes its core allocate is bounded where it is allocated.
void limit_growth(int resource, u64 allowance) {
  rlimit now{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &now);
  limit(resource, std::min<rlim_t>(now.rlim_max, in_use(resource) + allowance));
}

u64 size_of(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && st.st_size > 0 ? static_cast<u64>(st.st_size) : 0;
}

// [first, end)
void close_range(unsigned first, unsigned end) {
  if (first >= end || ::syscall(SYS_close_range, first, end - 1, 0) == 0) return;
  // Kernels before 5.9, or a container profile that does not know the call.
  const long open_max = ::sysconf(_SC_OPEN_MAX);
  for (long fd = first; fd < std::min<long>(end, std::clamp(open_max, 1024L, 65536L)); fd++)
    ::close(static_cast<int>(fd));
}

class Filter {
 public:
  Filter() : context_{::seccomp_init(SCMP_ACT_KILL_PROCESS)} {}
  ~Filter() {
    if (context_) ::seccomp_release(context_);
  }
  Filter(const Filter&) = delete;

  void allow(int call) { add(SCMP_ACT_ALLOW, call, {}); }
  void allow(int call, std::initializer_list<scmp_arg_cmp> conditions) { add(SCMP_ACT_ALLOW, call, conditions); }
  void refuse(int call, u16 error, std::initializer_list<scmp_arg_cmp> conditions) {
    add(SCMP_ACT_ERRNO(error), call, conditions);
  }
  int load() {
    if (!context_) return ENOMEM;
    // 32-bit and x32 calls: the process, not the thread that tries.
    if (!error_) error_ = -::seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!error_) error_ = -::seccomp_attr_set(context_, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!error_) error_ = -::seccomp_load(context_);
    return error_;
  }

 private:
  void add(u32 action, int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (!context_ || error_) return;
    error_ =
        -::seccomp_rule_add_array(context_, action, call, static_cast<unsigned>(conditions.size()), conditions.begin());
  }
  scmp_filter_ctx context_;
  int error_ = 0;
};

constexpr int kFutexWaitv = 449;  // Linux 5.16; older hosts refuse it themselves

scmp_arg_cmp masked(unsigned arg, u64 mask, u64 value) { return {arg, SCMP_CMP_MASKED_EQ, mask, value}; }
scmp_arg_cmp equal(unsigned arg, u64 value) { return {arg, SCMP_CMP_EQ, value, 0}; }

}  // namespace

void harden_process(bool own_mounts) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // once more: exec may have cleared it
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (own_mounts) channel::leave_files();
  channel::drop_capabilities();
  ::prctl(PR_SET_DUMPABLE, 0);
  limit(RLIMIT_CORE, 0);
  // Before it gives back memory of a thread's heap, malloc reads /proc/sys/vm/overcommit_memory: it must not try.
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  // Nor ask the number of host CPUs in /sys before it makes a further arena.
  ::mallopt(M_ARENA_MAX, 64);
  channel::ignore_group_signals();
}

int close_descriptors(int keep, std::vector<int> others) {
  if (keep > 0) {
    // `others` may have taken descriptor 0.
    for (int fd : others) INVARIANT(fd != 0, "descriptor 0 is in use");
    ::dup2(keep, 0);
  }
  std::sort(others.begin(), others.end());
  unsigned next = keep < 0 ? 0 : 1;
  for (const int fd : others) {
    close_range(next, static_cast<unsigned>(fd));
    next = static_cast<unsigned>(fd) + 1;
  }
  close_range(next, ~0u);
  return keep < 0 ? -1 : 0;
}

u64 data_allowance(u32 vcpus) { return GiB + vcpus * 256 * MiB; }
u64 address_space_allowance(u32 vcpus) { return data_allowance(vcpus) + 8 * GiB; }

Result<void, std::string> lock_down(const Confinement& c) {
  limit_growth(RLIMIT_DATA, data_allowance(c.vcpus));
  limit_growth(RLIMIT_AS, address_space_allowance(c.vcpus));
  if (c.cpu_seconds > 0) limit(RLIMIT_CPU, c.cpu_seconds);
  const u64 most_trace = c.trace_fd < 0 ? 0 : size_of(c.trace_fd) + channel::kMostTraceBytes;
  limit(RLIMIT_FSIZE, std::max(most_trace, c.ram_fd < 0 ? 0 : c.ram_bytes));
  limit(RLIMIT_NPROC, 0);
  limit(RLIMIT_NOFILE, 0);
  Filter f;
  // Sleeping, waking, ending.
  for (int call : {SCMP_SYS(futex), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(sched_yield),
                   SCMP_SYS(restart_syscall), SCMP_SYS(membarrier)})
    f.allow(call);
  // Signals of our own: SIGFPE of guest arithmetic, crash reports.
  for (int call : {SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(sigaltstack), SCMP_SYS(timer_create),
                   SCMP_SYS(timer_settime), SCMP_SYS(gettid), SCMP_SYS(getpid)})
    f.allow(call);
  f.allow(SCMP_SYS(tgkill), {equal(0, static_cast<u64>(::getpid()))});
  // Time, where the vdso does not answer.
  for (int call : {SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time)}) f.allow(call);
  // Memory: anonymous, never executable.
  for (int call : {SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(madvise)}) f.allow(call);
  // As realloc() does it. Not to a place of the caller's choice, and not a second mapping of the same (old size 0).
  f.allow(SCMP_SYS(mremap), {{1, SCMP_CMP_NE, 0, 0}, equal(3, MREMAP_MAYMOVE)});
  f.allow(SCMP_SYS(mmap), {masked(2, PROT_EXEC, 0), masked(3, MAP_ANONYMOUS, MAP_ANONYMOUS)});
  f.allow(SCMP_SYS(mprotect), {masked(2, PROT_EXEC, 0)});
  // Cages: their orders, kicks, and whether they live.
  for (const int fd : c.orders) f.allow(SCMP_SYS(write), {equal(0, static_cast<u64>(fd))});
  for (const pid_t pid : c.processes) {
    f.allow(SCMP_SYS(tgkill), {equal(0, static_cast<u64>(pid))});
    f.allow(SCMP_SYS(wait4), {equal(0, static_cast<u64>(pid))});
    f.allow(SCMP_SYS(sched_setaffinity), {equal(0, static_cast<u64>(pid))});
  }
  if (!c.processes.empty()) f.allow(kFutexWaitv);
  // Images into RAM. Descriptors that are closed do not come back: nothing here makes new ones.
  for (const int fd : c.images) {
    f.allow(SCMP_SYS(sendfile), {equal(0, static_cast<u64>(c.ram_fd)), equal(1, static_cast<u64>(fd))});
    for (const int call : {SCMP_SYS(lseek), SCMP_SYS(close)}) f.allow(call, {equal(0, static_cast<u64>(fd))});
  }
  if (c.ram_fd >= 0)
    for (const int call : {SCMP_SYS(lseek), SCMP_SYS(close)}) f.allow(call, {equal(0, static_cast<u64>(c.ram_fd))});
  if (c.trace_fd >= 0) f.allow(SCMP_SYS(write), {equal(0, static_cast<u64>(c.trace_fd))});
  // libc tells standard error, which is closed, of a smashed stack before it aborts: the crash report is to say
  // SIGABRT.
  f.refuse(SCMP_SYS(writev), EBADF, {equal(0, STDERR_FILENO)});
  if (const int error = f.load())
    return Err{
        fmt::format("sandbox: cannot install the seccomp filter: {}; `trapline doctor` says what this host offers",
                    std::strerror(error))};
  return {};
}

}  // namespace trapline::core
