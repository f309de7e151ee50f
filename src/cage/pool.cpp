#include "cage/pool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#if __has_include(<sys/rseq.h>)  // glibc 2.35 and later
#include <sys/rseq.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "channel/futex.h"

namespace trapline::cage {

namespace {

constexpr int kSignals[] = {kKick, SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

std::string failed(const char* what) { return fmt::format("{}: {}", what, std::strerror(errno)); }

bool host_has_fsgsbase() {
  constexpr unsigned long kBit = 2;  // HWCAP2_FSGSBASE
  return getauxval(AT_HWCAP2) & kBit;
}

// glibc 2.35 and later register restartable sequences: the kernel would write to an area that is gone.
void forget_thread() {
#ifdef RSEQ_SIG
  constexpr u32 kBytes = 32;
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  ::syscall(SYS_rseq, area, kBytes, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
#endif
  ::syscall(SYS_set_robust_list, nullptr, 24);
  ::syscall(SYS_set_tid_address, nullptr);
}

struct Birth {
  int shared_fd, ram_fd, copies_fd, order_fd;
  u64 shared_offset;
  const std::vector<sock_filter>* filter;
  pid_t parent;
  u64 stub;
};

// Places descriptors at their numbers and closes all others.
bool keep_descriptors(const Birth& b) {
  constexpr int kAbove = 16;
  const int ram = ::fcntl(b.ram_fd, F_DUPFD, kAbove), copies = ::fcntl(b.copies_fd, F_DUPFD, kAbove),
            order = ::fcntl(b.order_fd, F_DUPFD, kAbove);
  if (ram < 0 || copies < 0 || order < 0) return false;
  if (::dup2(ram, CAGE_RAM_FD) < 0 || ::dup2(copies, CAGE_COPIES_FD) < 0 || ::dup2(order, CAGE_ORDER_FD) < 0)
    return false;
  for (int fd : {0, 1, 2}) ::close(fd);
  if (::syscall(SYS_close_range, CAGE_ORDER_FD + 1, ~0u, 0) == 0) return true;
  for (int fd = CAGE_ORDER_FD + 1; fd < 65536; fd++) ::close(fd);  // kernels before 5.9
  return true;
}

bool map_stub(const Birth& b) {
  const auto at = [&](u64 offset) { return reinterpret_cast<void*>(b.stub + offset); };
  const auto map = [&](u64 offset, u64 bytes, int flags, int fd, u64 file_offset) {
    return ::mmap(at(offset), bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd,
                  static_cast<off_t>(file_offset)) == at(offset);
  };
  if (!map(0, CAGE_CODE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) return false;
  if (!map(CAGE_EXCHANGE, 0x2000, MAP_SHARED, b.shared_fd, b.shared_offset)) return false;
  if (!map(CAGE_ORDERS, 0x1000, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) return false;
  if (!map(CAGE_STACK, CAGE_STACK_BYTES, MAP_SHARED, b.shared_fd, b.shared_offset + 0x2000)) return false;
  std::memcpy(at(0), cage_stub_begin, static_cast<std::size_t>(cage_stub_end - cage_stub_begin));
  return ::mprotect(at(0), CAGE_CODE_BYTES, PROT_READ | PROT_EXEC) == 0;
}

void install_handlers(u64 stub) {
  stack_t stack{};
  stack.ss_sp = reinterpret_cast<void*>(stub + CAGE_STACK);
  stack.ss_size = CAGE_STACK_BYTES;
  ::sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction =
      reinterpret_cast<void (*)(int, siginfo_t*, void*)>(stub + static_cast<u64>(cage_stub_signal - cage_stub_begin));
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (const int s : kSignals) ::sigaction(s, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void limit(int resource) {
  const rlimit none{0, 0};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &none);
}

constexpr int kArchSetCpuid = 0x1012;  // ARCH_SET_CPUID, asm/prctl.h of kernels from 4.12 on
bool set_cpuid(unsigned long enabled) { return ::syscall(SYS_arch_prctl, kArchSetCpuid, enabled) == 0; }

[[noreturn]] void live(const Birth& b) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != b.parent) ::_exit(1);  // it died before the first line
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0);
  if (!map_stub(b) || !keep_descriptors(b)) ::_exit(1);
  for (const int resource : {RLIMIT_CORE, RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_FSIZE}) limit(resource);
  auto* program = reinterpret_cast<sock_fprog*>(b.stub + CAGE_EXCHANGE + X_FILTER);
  auto* code = reinterpret_cast<sock_filter*>(program + 1);
  program->len = static_cast<unsigned short>(b.filter->size());
  program->filter = code;
  std::memcpy(code, b.filter->data(), b.filter->size() * sizeof(sock_filter));
  install_handlers(b.stub);
  set_cpuid(0);
  forget_thread();
  reinterpret_cast<void (*)()>(b.stub + static_cast<u64>(cage_stub_init - cage_stub_begin))();
  __builtin_unreachable();
}

// An order pipe, of which one message at a time is taken.
bool make_pipe(int (&ends)[2]) { return ::pipe2(ends, O_CLOEXEC) == 0; }

}  // namespace

namespace {

// Linux Documentation/admin-guide/sysctl/vm.rst, max_map_count. More are of no use: to empty a cage is cheap beside making them.
u64 host_mappings() {
  constexpr u64 kMost = 65'530, kLeast = 100;
  u64 count = kMost;
  std::ifstream{"/proc/sys/vm/max_map_count"} >> count;
  return std::clamp(count, kLeast, kMost);
}

struct SharedFile {
  int fd = -1;
  void* at = nullptr;
};

// `at` is null when there is none of that size.
SharedFile make_shared_file(const char* name, u64 bytes) {
  SharedFile f{::memfd_create(name, MFD_CLOEXEC)};
  if (f.fd < 0 || ::ftruncate(f.fd, static_cast<off_t>(bytes)) != 0) return f;
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
  if (at != MAP_FAILED) f.at = at;
  return f;
}

// How many tasks, up to `most`, could be made now, found by making them: no call says what RLIMIT_NPROC and the control
// group still allow.
unsigned room_for_tasks(unsigned most) {
  constexpr u64 kStackBytes = 256 * KiB;
  std::atomic<u32> end{0};
  std::vector<pthread_t> threads;
  // One mapping for all stacks: glibc's own would cost a mapping, a guard and an unmapping each.
  const u64 stack_bytes = most * kStackBytes;
  void* const stacks = ::mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) return 0;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  const auto body = [](void* word) -> void* {
    auto& over = *static_cast<std::atomic<u32>*>(word);
    while (over.load() == 0) channel::futex_wait(over, 0, 1'000'000'000);
    return nullptr;
  };
  pthread_t thread;
  while (threads.size() < most &&
         pthread_attr_setstack(&attributes, static_cast<u8*>(stacks) + threads.size() * kStackBytes, kStackBytes) ==
             0 &&
         pthread_create(&thread, &attributes, body, &end) == 0)
    threads.push_back(thread);
  end.store(1);
  for (std::size_t i = 0; i < threads.size(); i++) channel::futex_wake(end);  // one each
  for (const pthread_t t : threads) pthread_join(t, nullptr);
  pthread_attr_destroy(&attributes);
  ::munmap(stacks, stack_bytes);
  return static_cast<unsigned>(threads.size());
}

}  // namespace

Result<std::unique_ptr<Pool>, std::string> Pool::make(unsigned count, int ram_fd, u64 copy_pages, unsigned spare,
                                                      const Defences& defences, unsigned elsewhere) {
  std::unique_ptr<Pool> pool{new Pool};
  ::signal(SIGPIPE, SIG_IGN);  // orders to a cage that somebody has killed say EPIPE
  if (getauxval(AT_MINSIGSTKSZ) > CAGE_STACK_BYTES / 2 - 4096)
    return Err{std::string{"signal frames of this CPU do not fit into a cage"}};
  pool->slots_ = count;
  pool->most_mappings_ = host_mappings() / 5 * 3;
  pool->cpuid_faults_ = set_cpuid(1);  // ENODEV where the processor has no such faults
  pool->copies_bytes_ = copy_pages * kPageSize;
  const SharedFile shared = make_shared_file("cages", count * sizeof(Shared));
  const SharedFile copies = make_shared_file("copies", pool->copies_bytes_);
  pool->shared_ = static_cast<Shared*>(shared.at);
  pool->copies_ = static_cast<u8*>(copies.at);
  const int fd = shared.fd, copies_fd = copies.fd;
  if (!shared.at || !copies.at) {
    const std::string error = failed("memory shared with cages");
    if (fd >= 0) ::close(fd);
    if (copies_fd >= 0) ::close(copies_fd);
    return Err{error};
  }
  std::string why;
  bool too_many = false;  // of the user's tasks, or the control group's
  for (unsigned i = 0; i < count; i++) {
    u64 random[3];
    int ends[2];
    if (::getrandom(random, sizeof random, 0) != sizeof random || !make_pipe(ends)) {
      why = failed("pipe");
      break;
    }
    Cage::Parts parts;
    parts.nonce = {static_cast<u32>(random[0]) | 1, static_cast<u32>(random[0] >> 32) | 1};
    parts.tokens = Tokens{random[1], random[2]};
    parts.trusted = !defences.tokens;
    if (i + elsewhere >= count) parts.stub = kOtherStub;
    parts.shared = pool->shared_ + i;
    parts.shared->exchange.fsgsbase = host_has_fsgsbase();
    parts.order_fd = ends[1];
    const std::vector<sock_filter> program = filter(parts.stub, parts.nonce, defences);
    const pid_t parent = ::getpid();
    parts.pid = ::fork();
    if (parts.pid == 0) live({fd, ram_fd, copies_fd, ends[0], i * sizeof(Shared), &program, parent, parts.stub});
    if (parts.pid < 0) why = failed("fork"), too_many = errno == EAGAIN;
    ::close(ends[0]);
    if (parts.pid < 0) {
      ::close(ends[1]);
      break;
    }
    pool->cages_.push_back(parts);
  }
  ::close(fd);
  ::close(copies_fd);
  if (pool->cages_.empty() && !too_many) return Err{why};
  for (unsigned lacking = spare - room_for_tasks(spare); lacking > 0 && !pool->cages_.empty(); lacking--) {
    end(pool->cages_.back());
    pool->cages_.pop_back();
  }
  return pool;
}

void Pool::end(const Cage::Parts& c) {
  if (::kill(c.pid, SIGKILL) == 0) ::waitpid(c.pid, nullptr, 0);
  if (c.order_fd >= 0) ::close(c.order_fd);
}

Pool::~Pool() {
  for (const Cage::Parts& c : cages_) end(c);
  if (shared_) ::munmap(shared_, slots_ * sizeof(Shared));
  if (copies_) ::munmap(copies_, copies_bytes_);
}

std::vector<int> Pool::descriptors() const {
  std::vector<int> out;
  for (const Cage::Parts& c : cages_) out.push_back(c.order_fd);
  return out;
}

std::vector<pid_t> Pool::processes() const {
  std::vector<pid_t> out;
  for (const Cage::Parts& c : cages_) out.push_back(c.pid);
  return out;
}

std::vector<std::unique_ptr<Cage>> Pool::share(unsigned part, unsigned parts) {
  std::vector<std::unique_ptr<Cage>> out;
  for (std::size_t i = part; i < cages_.size(); i += parts) {
    auto cage = std::make_unique<Cage>(cages_[i]);
    if (cage->await_ready()) out.push_back(std::move(cage));
  }
  return out;
}

u64 Pool::copies_offset(unsigned part, unsigned parts) const {
  return copies_bytes_ / kPageSize / parts * kPageSize * part;
}

std::span<u8> Pool::copies(unsigned part, unsigned parts) const {
  return {copies_ + copies_offset(part, parts), copies_bytes_ / kPageSize / parts * kPageSize};
}

std::string missing_on_host() {
  // Beyond the limit of file sizes comes a signal; whoever makes guest RAM reports it later.
  const auto before = ::signal(SIGXFSZ, SIG_IGN);
  const int fd = ::memfd_create("cage probe", MFD_CLOEXEC);
  const bool made = fd >= 0 && ::ftruncate(fd, 4096) == 0;
  ::signal(SIGXFSZ, before);
  if (!made) {
    if (fd >= 0) ::close(fd);
    return "memfd_create";
  }
  std::string why;
  if (auto pool = Pool::make(1, fd, 1); !pool) {
    why = "cages: " + pool.error();
  } else {
    auto cages = (*pool)->share(0, 1);
    if ((*pool)->size() == 0) {
      why = "cages: room for processes (ulimit -u, or the control group's)";
    } else if (cages.empty()) {
      why = "cages: a process that has given everything up but its filter";
    } else {
      cages[0]->map(Gva{0x10000000}, 4096, PROT_READ | PROT_EXEC, CAGE_RAM_FD, 0, true);
      if (!cages[0]->carry_out() || cages[0]->shared().exchange.failed != 0)
        why = "cages: mapping a memfd's page executable";
    }
  }
  ::close(fd);
  return why;
}

}  // namespace trapline::cage
