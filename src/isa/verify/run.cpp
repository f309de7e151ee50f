#include "isa/verify/run.h"

#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>

#include "isa/verify/arena.h"

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace trapline::isa::verify {

namespace {

constexpr u16 kUserCode64 = 0x33, kUserCode32 = 0x23;  // Linux's GDT
constexpr unsigned kSeconds = 2;                       // then the instruction hangs

// The C library may not be called any more: the instruction may have replaced FS.base.
[[noreturn]] void leave() {
  asm volatile("syscall" ::"a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
  __builtin_unreachable();
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const auto& regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Shared& shared = Arena::instance().shared();
  shared.signal = signal;
  shared.code = info->si_code;
  shared.trap = static_cast<u64>(regs[REG_TRAPNO]);
  shared.error = static_cast<u64>(regs[REG_ERR]);
  shared.address = reinterpret_cast<u64>(info->si_addr);
  if (signal == SIGSYS) shared.address = static_cast<u32>(info->si_syscall), shared.arch = info->si_arch;
  shared.state = Shared::signalled;
  leave();
}

[[noreturn]] void refuse(const char* why) {
  Shared& shared = Arena::instance().shared();
  std::strncpy(shared.reason, why, sizeof shared.reason - 1);
  shared.state = Shared::refused;
  leave();
}

void catch_signals() {
  // Extended state makes the frame larger than SIGSTKSZ on recent processors: ask the kernel.
  const std::size_t size = ::getauxval(AT_MINSIGSTKSZ) + 64 * 1024;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) refuse("no memory for a signal stack");
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = size;
  if (::sigaltstack(&stack, nullptr) != 0) refuse("sigaltstack failed");
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int s : {SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGFPE, SIGSYS}) ::sigaction(s, &action, nullptr);
  ::signal(SIGALRM, SIG_DFL);
  sigset_t all;
  ::sigemptyset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::alarm(kSeconds);
}

// exit_group by the 64-bit entry; any other system call, by any entry, is reported as SIGSYS.
void close_filter() {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  const sock_fprog filter{std::size(program), const_cast<sock_filter*>(program)};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0)
    refuse("seccomp is not to be had");
}

[[noreturn]] void child(const Stage& stage) {
  Arena& arena = Arena::instance();
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (stage.size == CodeSize::bits16 && install_16bit_segment(arena) == 0) refuse("modify_ldt is refused");
  catch_signals();
  if (::mprotect(arena.code(), kPage, PROT_READ | PROT_EXEC) != 0) refuse("no executable memory");
  if (stage.cpuid_off && ::syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) refuse("no CPUID faulting");
  if (stage.tsc_off && ::prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0) refuse("PR_SET_TSC is refused");
  close_filter();
  reinterpret_cast<void (*)()>(arena.code())();
  leave();
}

void fill(Arena& arena, const Stage& stage) {
  Shared& shared = arena.shared();
  new (&shared) Shared{};
  shared.in = stage.in;
  std::memcpy(arena.scratch(), stage.scratch.data(), kPage);
  std::memset(arena.scratch() + kPage, 0x5a, kPage);  // the stack's page
  std::memcpy(arena.stack(), stage.stack.data(), sizeof stage.stack);
  assemble(arena, stage);
}

Observation collect(Arena& arena, int status) {
  Shared& shared = arena.shared();
  Observation o;
  std::memcpy(o.scratch.data(), arena.scratch(), kPage);
  std::memcpy(o.stack.data(), arena.stack(), sizeof o.stack);
  o.out = shared.out;
  switch (shared.state) {
    case Shared::executed:
      o.kind = Observation::Kind::executed;
      // What the instruction pushed lies below its stack pointer at entry: show it from there.
      if (const u64 down = Arena::low(arena.stack()) - o.out.gpr[rsp]; down != 0 && down <= 512)
        std::memcpy(o.stack.data(), reinterpret_cast<u8*>(arena.stack()) - down, sizeof o.stack);
      break;
    case Shared::signalled:
      o.kind = Observation::Kind::signalled;
      o.signal = shared.signal, o.code = shared.code, o.arch = shared.arch;
      o.trap = shared.trap, o.error = shared.error, o.address = shared.address;
      break;
    case Shared::refused:
      o.reason = shared.reason;
      break;
    default:
      o.kind = Observation::Kind::died;
      o.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  return o;
}

Observation not_run(std::string why) {
  Observation o;
  o.reason = std::move(why);
  return o;
}

}  // namespace

Stage::Stage() {
  in.gpr.fill(kPoison);
  in.gpr[rdi] = layout(size, 0).scratch;
  in.gpr[rsp] = layout(size, 0).stack;
  scratch.fill(0x5a);
  std::memset(stack.data(), 0x5a, sizeof stack);
}

void Stage::set_code(std::span<const u8> bytes) {
  length = std::min(bytes.size(), code.size());
  std::memcpy(code.data(), bytes.data(), length);
}

void Stage::push_slot(unsigned index, u64 value) {
  const std::size_t width = size == CodeSize::bits64 ? 8 : size == CodeSize::bits32 ? 4 : 2;
  if ((index + 1) * width > sizeof stack) return;
  std::memcpy(reinterpret_cast<u8*>(stack.data()) + index * width, &value, width);
}

Layout layout(CodeSize size, std::size_t length) {
  Arena& arena = Arena::instance();
  Layout l;
  l.code = Arena::low(arena.code());
  l.data = l.code + kPage;
  l.scratch = l.code + 2 * kPage;
  l.stack = l.code + 3 * kPage + kPage / 2;
  l.behind = (size == CodeSize::bits16 ? 0 : l.code) + kInstructionAt + static_cast<u32>(length);
  return l;
}

u16 code_selector(CodeSize size) {
  if (size == CodeSize::bits64) return kUserCode64;
  return size == CodeSize::bits32 ? kUserCode32 : u16{0x7};
}

Observation run(const Stage& stage) {
  Arena& arena = Arena::instance();
  if (!arena.ok()) return not_run("no memory below 2 GiB");
  if (::mprotect(arena.code(), kPage, PROT_READ | PROT_WRITE) != 0) return not_run("no memory for code");
  fill(arena, stage);
  const pid_t pid = ::fork();
  if (pid < 0) return not_run("fork failed");
  if (pid == 0) child(stage);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return not_run("the child was lost");
  return collect(arena, status);
}

}  // namespace trapline::isa::verify
