// A VM inside a container: as an ordinary user under a filter that refuses what Docker's default seccomp profile
// refuses (docs.docker.com, "Seccomp security profiles for Docker"), with the same error numbers.
#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

constexpr const char* kRefused[] = {
    // Kernel modules, reboot, swap, accounting, raw I/O, clocks, the host's name.
    "init_module", "finit_module", "delete_module", "create_module", "query_module", "get_kernel_syms", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "ioperm", "iopl", "clock_settime", "clock_adjtime",
    "settimeofday", "adjtimex", "sethostname", "setdomainname", "syslog", "vhangup", "quotactl",
    // Namespaces and mounts.
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig",
    "fsmount", "fspick", "mount_setattr",
    // Keys, BPF, tracing, other processes' memory, page faults handled by users, asynchronous rings.
    "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "process_vm_readv", "process_vm_writev", "kcmp",
    "pidfd_getfd", "process_madvise", "userfaultfd", "lookup_dcookie", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "fanotify_init", "open_by_handle_at", "name_to_handle_at",
    // NUMA policy, and what is obsolete.
    "get_mempolicy", "set_mempolicy", "mbind", "move_pages", "migrate_pages", "nfsservctl", "uselib", "ustat", "sysfs",
    "_sysctl"};

bool refuse(scmp_filter_ctx filter, const char* name) {
  const int number = ::seccomp_syscall_resolve_name(name);
  return number == __NR_SCMP_ERROR || ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0) == 0;
}

// Namespace flags make clone() fail; personality() may not switch address randomization off; clone3() hides its flags
// in memory, so it does not exist.
bool refuse_by_arguments(scmp_filter_ctx filter) {
  constexpr scmp_datum_t kNamespaces =
      CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;
  for (scmp_datum_t bit = 1; bit <= kNamespaces; bit <<= 1)
    if ((kNamespaces & bit) && ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                                  SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit)) != 0)
      return false;
  return ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0 &&
         ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(personality), 1,
                            SCMP_A0(SCMP_CMP_EQ, ADDR_NO_RANDOMIZE)) == 0 &&
         ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_VSOCK)) == 0;
}

bool enter_container() {
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  if (!filter) return false;
  for (const char* name : kRefused)
    if (!refuse(filter, name)) return false;
  return refuse_by_arguments(filter) && ::seccomp_load(filter) == 0;  // sets no_new_privs
}

void become_nobody() {
  if (::geteuid() != 0) return;
  if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(98);
}

// The exit code of `argv`, run there; its output goes to `log`.
int run_in_container(std::vector<std::string> argv, const std::string& log) {
  std::vector<char*> words;
  for (auto& a : argv) words.push_back(a.data());
  words.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const int out = ::open(log.c_str(), O_WRONLY | O_APPEND);
    ::dup2(::open("/dev/null", O_RDONLY), 0);
    ::dup2(out, 1);
    ::dup2(out, 2);
    become_nobody();
    if (!enter_container()) ::_exit(97);
    ::execv(words[0], words.data());
    ::_exit(96);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream{path}.rdbuf();
  return text.str();
}

TEST(Container, TheFilterRefusesWhatDockersDoes) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!enter_container()) ::_exit(97);
    const auto fails = [](long result, int error) { return result == -1 && errno == error; };
    if (!fails(::syscall(SYS_unshare, CLONE_NEWUSER), EPERM)) ::_exit(1);
    if (!fails(::syscall(SYS_clone3, nullptr, 0), ENOSYS)) ::_exit(2);
    if (!fails(::syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, nullptr), EPERM)) ::_exit(3);
    if (!fails(::syscall(SYS_userfaultfd, 0), EPERM)) ::_exit(4);
    if (!fails(::syscall(SYS_personality, ADDR_NO_RANDOMIZE), EPERM)) ::_exit(5);
    if (::syscall(SYS_personality, 0xffffffff) < 0) ::_exit(6);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST(Container, AVmRunsThere) {
  const TempFile kernel{multiboot(prints("from inside", exits_with(4)))}, log{""};
  ::chmod(kernel.path().c_str(), 0644);
  ::chmod(log.path().c_str(), 0666);
  for (const char* clock : {"real", "instructions"}) {
    const int code = run_in_container({TRAPLINE_EXECUTABLE, "run", "--cpus", "2", "--memory", "64M", "--clock", clock,
                                       "--timeout", "60", "--kernel", kernel.path()},
                                      log.path());
    if (code == 96) GTEST_SKIP() << "the executable lies where others cannot read it";
    EXPECT_EQ(code, 9) << contents(log.path());
  }
  EXPECT_EQ(contents(log.path()), "from insidefrom inside");
}

TEST(Container, ACommandRunsInAVmThere) {
  const std::string kernel = std::string{GUEST_CACHE} + "/kernels/amd64/vmlinuz";
  if (::access(GUEST_CACHE "/kernels/amd64/modules", F_OK) != 0)
    GTEST_SKIP() << "scripts/guest-kernel.sh amd64 fetches it";
  const TempFile log{""};
  ::chmod(log.path().c_str(), 0666);
  const int code = run_in_container({TRAPLINE_EXECUTABLE, "exec", "--timeout", "100", "--kernel", kernel, "--workdir",
                                     "/tmp", "--", "sh", "-c", "id -u; pwd; exit 5"},
                                    log.path());
  if (code == 96) GTEST_SKIP() << "the executable lies where others cannot read it";
  EXPECT_EQ(code, 5) << contents(log.path());
  EXPECT_EQ(contents(log.path()), ::geteuid() == 0 ? "65534\n/tmp\n" : std::to_string(::getuid()) + "\n/tmp\n");
}

TEST(Container, DoctorFindsAllItNeeds) {
  const TempFile log{""};
  ::chmod(log.path().c_str(), 0666);
  const int code = run_in_container({TRAPLINE_EXECUTABLE, "doctor"}, log.path());
  if (code == 96) GTEST_SKIP() << "the executable lies where others cannot read it";
  EXPECT_EQ(code, 0) << contents(log.path());
  EXPECT_THAT(contents(log.path()), testing::HasSubstr("not needed"));
}

}  // namespace
}  // namespace trapline::test
