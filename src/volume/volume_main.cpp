#include "volume/volume_main.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "channel/core_start.h"
#include "channel/volume_answer.h"
#include "volume/boot_files.h"
#include "volume/nbd_source.h"
#include "volume/write_whole.h"

namespace trapline::volume {

namespace {

constexpr rlim_t kMostMemory = GiB, kMostSeconds = 60;

constexpr int kAllowed[] = {
    SCMP_SYS(pread64),   SCMP_SYS(write),          SCMP_SYS(lseek),          SCMP_SYS(close),
    SCMP_SYS(fstat),     SCMP_SYS(newfstatat),     SCMP_SYS(futex),          SCMP_SYS(brk),
    SCMP_SYS(munmap),    SCMP_SYS(mremap),         SCMP_SYS(madvise),        SCMP_SYS(exit_group),
    SCMP_SYS(exit),      SCMP_SYS(rt_sigreturn),   SCMP_SYS(rt_sigprocmask), SCMP_SYS(getpid),
    SCMP_SYS(gettid),    SCMP_SYS(clock_gettime),  SCMP_SYS(time),           SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom), SCMP_SYS(restart_syscall)};

bool close_in(int server) {
  const rlimit none{0, 0}, seconds{kMostSeconds, kMostSeconds};
  ::setrlimit(RLIMIT_CORE, &none);
  ::setrlimit(RLIMIT_NOFILE, &none);
  ::setrlimit(RLIMIT_CPU, &seconds);
#ifndef __SANITIZE_ADDRESS__  // its shadow memory is address space
  const rlimit memory{kMostMemory, kMostMemory};
  ::setrlimit(RLIMIT_AS, &memory);
#endif
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
  int error = filter ? 0 : -ENOMEM;
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (!error)
      error = ::seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                       conditions.begin());
  };
  for (const int call : kAllowed) allow(call, {});
  if (server >= 0) allow(SCMP_SYS(read), {{0, SCMP_CMP_EQ, static_cast<u64>(server), 0}});
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  allow(SCMP_SYS(mmap), {not_executable, {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS}});
  allow(SCMP_SYS(mprotect), {not_executable});
  allow(SCMP_SYS(tgkill), {{0, SCMP_CMP_EQ, static_cast<u64>(::getpid()), 0}});  // abort()
  if (!error) error = ::seccomp_load(filter);
  if (filter) ::seccomp_release(filter);
  return error == 0;
}

// Standard error stays: it is the lifeline.
void close_others(std::initializer_list<int> kept) {
  for (int fd = 0; fd < 1024; fd++)
    if (fd != STDERR_FILENO && std::find(kept.begin(), kept.end(), fd) == kept.end()) ::close(fd);
  ::syscall(SYS_close_range, 1024, ~0u, 0);
}

int answer(int fd, const std::string& text) {
  return write_whole(fd, {reinterpret_cast<const u8*>(text.data()), text.size()}) ? 0 : 1;
}

}  // namespace

int volume_main(int argc, char** argv) {
  if (argc != 8) return channel::kCannotStart;
  const char* const served = std::strchr(argv[2], ':');
  const int disk = std::atoi(argv[2]), kernel = std::atoi(argv[3]), initrd = std::atoi(argv[4]),
            out = std::atoi(argv[5]);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  channel::ignore_group_signals();
  close_others({disk, kernel, initrd, out});
  if (auto loaded = load_ext_library(); !loaded) return answer(out, channel::kVolumeError + loaded.error());
  ::signal(SIGPIPE, SIG_IGN);
  if (!close_in(served ? disk : -1))
    return answer(out, channel::kVolumeError + std::string{"no seccomp filter: see trapline doctor"});
  const FileSource file{disk};
  const NbdSource server{disk, served ? std::strtoull(served + 1, nullptr, 10) : 0};
  const Source& source = served ? static_cast<const Source&>(server) : file;
  const Wanted wanted{argv[6], argv[7], kernel >= 0, initrd >= 0};
  const auto files = read_boot_files(
      source, wanted, [&](std::span<const u8> bytes) { return write_whole(kernel, bytes); },
      [&](std::span<const u8> bytes) { return write_whole(initrd, bytes); });
  if (!files) return answer(out, channel::kVolumeError + files.error());
  return answer(out, files->kernel + "\n" + files->initrd + "\n" + files->root + "\n" +
                         std::to_string(files->root_number) + "\n");
}

}  // namespace trapline::volume
