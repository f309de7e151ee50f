// Every probe that could hurt (an instruction that may fault, a filter that stays) runs in a child of its own. /dev/kvm
// is not looked at: Trapline does not use it.
#include "cli/doctor.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <string>

#include "base/growing_memory.h"
#include "base/types.h"
#include "channel/exit_codes.h"
#include "channel/futex.h"
#include "channel/namespaces.h"
#include "cli/options.h"
#include "cli/print.h"
#include "engine/hostcode/host.h"
#include "engine/registry.h"
#include "monitor/huge_file.h"
#include "monitor/split_locks.h"

namespace trapline::cli {

namespace {

std::string g_text;

void line(std::string_view name, const std::string& finding) { g_text += fmt::format("{:<18}{}\n", name, finding); }

// Runs `probe` in a child. Its return value, or -signal, or -1000 when no child can be made.
template <class Probe>
int in_child(Probe probe) {
  const pid_t pid = ::fork();
  if (pid < 0) return -1000;
  if (pid == 0) {
    for (int s : {SIGSEGV, SIGILL, SIGBUS, SIGSYS}) ::signal(s, SIG_DFL);
    ::_exit(probe());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string read_line(const char* path) {
  std::ifstream in{path};
  std::string text;
  return std::getline(in, text) ? text : "unknown";
}

std::string cpu_name() {
  std::ifstream in{"/proc/cpuinfo"};
  for (std::string text; std::getline(in, text);)
    if (text.starts_with("model name")) return text.substr(text.find(':') + 2);
  return "unknown";
}

bool bit(u32 leaf, u32 subleaf, char reg, unsigned n) {
  u32 a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d)) return false;
  return (reg == 'b' ? b : reg == 'c' ? c : d) >> n & 1;
}

std::string vector_extensions() {
  std::string s = "sse2";
  const std::pair<const char*, bool> all[] = {
      {"sse4.2", bit(1, 0, 'c', 20)}, {"avx", bit(1, 0, 'c', 28)},     {"avx2", bit(7, 0, 'b', 5)},
      {"fma", bit(1, 0, 'c', 12)},    {"bmi2", bit(7, 0, 'b', 8)},     {"aes", bit(1, 0, 'c', 25)},
      {"sha", bit(7, 0, 'b', 29)},    {"avx512f", bit(7, 0, 'b', 16)},
  };
  for (const auto& [name, there] : all)
    if (there) s += std::string{" "} + name;
  return s;
}

std::string fsgsbase() {
  return ::getauxval(AT_HWCAP2) & 2 ? "yes: segment bases change without a system call"
                                    : "no: translated code loads the base of its tables from memory instead";
}

std::string pext() {
  const double cycles = engine::hostcode::pext_cycles();
  if (cycles == 0) return "no BMI2";
  return fmt::format(
      "{:.0f} cycle{}: {}", cycles, std::lround(cycles) == 1 ? "" : "s",
      engine::hostcode::host_ways().pext ? "translated code uses it" : "microcode, translated code shifts instead");
}

std::string umip() {
  if (!bit(7, 0, 'c', 2)) return "no: SGDT, SIDT, SLDT, STR and SMSW reveal the host's values in ring 3";
  const int got = in_child([] {
    u8 table[10] = {};
    asm volatile("sidt %0" : "=m"(table));
    u64 base;
    __builtin_memcpy(&base, table + 2, 8);
    return base >> 32 == 0xfffffe00 || base == 0 ? 0 : 1;
  });
  return got < 0 ? "yes: those instructions fault in ring 3"
                 : "yes: the host kernel answers those instructions with dummy values";
}

std::string cpuid_faulting() {
  const int got = in_child([] {
    if (::syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) return 1;
    u32 a, b, c, d;
    __cpuid(0, a, b, c, d);
    return 0;
  });
  return got == -SIGSEGV ? "yes: CPUID in ring 3 can be made to trap" : "no: direct execution must patch CPUID instead";
}

bool seccomp_works() {
  return in_child([] {
           sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
           const sock_fprog program{1, &allow};
           ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
           return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0 ? 0 : 1;
         }) == 0;
}

bool user_namespaces() {
  return in_child([] { return ::unshare(CLONE_NEWUSER) == 0 ? 0 : 1; }) == 0;
}

bool executable_memfd() {
  const int fd = ::memfd_create("probe", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, 4096) != 0) return false;
  void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  ::close(fd);
  if (at == MAP_FAILED) return false;
  ::munmap(at, 4096);
  return true;
}

std::string limit(__rlimit_resource which) {
  rlimit l{};
  ::getrlimit(which, &l);
  return l.rlim_cur == RLIM_INFINITY ? "unlimited" : std::to_string(l.rlim_cur);
}

std::string outer_hypervisor() {
  u32 a, b, c, d;
  __cpuid(1, a, b, c, d);
  if (!(c >> 31)) return "none seen";
  char name[13] = {};
  __cpuid(0x40000000, a, b, c, d);
  __builtin_memcpy(name, &b, 4), __builtin_memcpy(name + 4, &c, 4), __builtin_memcpy(name + 8, &d, 4);
  for (char& ch : name)
    if (ch && (ch < ' ' || ch > '~')) ch = '?';
  std::string found = name;  // padded with blanks by some
  found.erase(found.find_last_not_of(' ') + 1);
  return found.empty() ? "yes, without a name" : "yes: " + found;
}

std::string engine_choice() {
  std::string missing;
  for (const char* name : {"interpret", "translate", "patch"})
    if (!engine::find_engine(name)) missing += fmt::format("{}{}", missing.empty() ? "" : " and ", name);
  const auto taken = engine::find_engine("auto")->name;
  for (const engine::EngineKind& e : engine::engines())
    if (const std::string lacks = e.missing(); !lacks.empty())
      return fmt::format("auto takes {}: for {} this host lacks {}", taken, e.name, lacks);
  if (missing.empty()) return fmt::format("auto takes {}: the fastest here", taken);
  return fmt::format("auto takes {}: {} not built into this version", taken,
                     missing + (missing.find(' ') == std::string::npos ? " is" : " are"));
}

}  // namespace

int run_doctor() {
  utsname host{};
  ::uname(&host);
  const bool seccomp = seccomp_works(), memfd = executable_memfd();
  line("kernel", fmt::format("{} {} {}", host.sysname, host.release, host.machine));
  line("cpu", cpu_name());
  line("cpus", fmt::format("{} usable", channel::usable_cpus()));
  line("vector units", vector_extensions());
  line("outer hypervisor", outer_hypervisor());
  line("invariant tsc", bit(0x80000007, 0, 'd', 8) ? "yes" : "not stated: guest time may drift");
  line("fsgsbase", fsgsbase());
  line("pext", pext());
  line("split locks",
       monitor::host_traps_split_locks() ? "end processes here: guests' are done in turn instead" : "allowed");
  line("umip", umip());
  line("cpuid faulting", cpuid_faulting());
  line("seccomp", seccomp ? "yes" : "no: the core cannot be sandboxed; allow seccomp() in the container's profile");
  line("user namespaces", user_namespaces() ? "yes" : "no (not needed)");
  const std::string own = channel::own_namespaces();
  line("core's namespaces", own.empty() ? "none of its own (not needed): the filter holds it" : own);
  line("memfd", memfd ? "yes, and executable" : "no executable memfd: allow memfd_create, and vm.memfd_noexec=0");
  line("huge pages", monitor::make_huge_files({{"probe", kHugePage}}).empty()
                         ? "no: guest RAM and code in pages of 4 KiB (not needed)"
                         : "yes: guest RAM and code, in a tmpfs of the VM's own");
  line("max_map_count", read_line("/proc/sys/vm/max_map_count"));
  line("mmap_min_addr", read_line("/proc/sys/vm/mmap_min_addr"));
  line("limits",
       fmt::format("address space {}, memlock {}, open files {}, processes {}, file size {}", limit(RLIMIT_AS),
                   limit(RLIMIT_MEMLOCK), limit(RLIMIT_NOFILE), limit(RLIMIT_NPROC), limit(RLIMIT_FSIZE)));
  line("hardware help", "not used: VT-x, AMD-V and /dev/kvm are never touched");
  for (const engine::EngineKind& e : engine::engines())
    if (e.needs.far && e.lacks().empty())
      line(e.name, fmt::format("address space for {} vCPUs", e.room(kMostCpus + 1) - 1));
  line("engine", engine_choice());
  if (seccomp && memfd) return print(g_text, 0);
  g_text += "this host cannot run VMs: see the lines above that begin with no\n";
  return print(g_text, static_cast<int>(ExitCode::host_refused));
}

}  // namespace trapline::cli
