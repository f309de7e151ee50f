#include "fuzz/native_child.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace trapline::fuzz {

// Entered by the kernel with the sequence's flags: AC would make this code's own accesses trap, NT and ID would be
// inherited by the next sequence, since sigreturn does not restore them.
extern "C" void trapline_fuzz_signal(int signal, siginfo_t* info, void* context);
asm(R"(
  .text
  .type trapline_fuzz_entry, @function
trapline_fuzz_entry:
  pushfq
  andq $~0x244000, (%rsp)
  popfq
  jmp trapline_fuzz_signal
  .size trapline_fuzz_entry, . - trapline_fuzz_entry
)");
extern "C" void trapline_fuzz_entry(int, siginfo_t*, void*);

namespace {

constexpr suseconds_t kWatchdogMicroseconds = 50'000;

struct Child {
  Native::Shared* shared = nullptr;
  FrameLayout layout;
  bool running = false;  // a sequence is under way
  bool int1_stays = false;
  u64 index = 0;
  u64 seen_by_watchdog = ~u64{0};
  gregset_t home;  // where run_batch() waits
  Registers home_registers;
};
Child child;  // one per process; the signal handler has no other way to it

// SS as the frame has it, also into code of another size (Linux arch/x86/include/uapi/asm/ucontext.h).
constexpr unsigned long kSigcontextSs = 2, kStrictRestoreSs = 4;
constexpr u16 kCode64 = 0x33, kCode32 = 0x23, kStack = 0x2b;

u16 code_selector(isa::CodeSize size, u64 slot) {
  return size == isa::CodeSize::bits64 ? kCode64 : size == isa::CodeSize::bits32 ? kCode32 : code16_selector(slot);
}

bool is_code(u16 selector) {
  u32 rights = 0;
  u8 visible;
  asm volatile("lar %2, %0; setz %1" : "=r"(rights), "=q"(visible) : "r"(u32{selector}) : "cc");
  return visible && (rights & 0x9800) == 0x9800;  // present, no system segment, code
}

// 16-bit code segments, in which the instruction pointer reaches every slot.
bool install_code16() {
  for (u64 base = 0; base < place::code_size; base += place::segment) {
    user_desc entry{};
    entry.entry_number = static_cast<unsigned>(base / place::segment);
    entry.base_addr = static_cast<unsigned>(place::code + base);
    entry.limit = 0xffff;
    entry.contents = MODIFY_LDT_CONTENTS_CODE;
    if (::syscall(SYS_modify_ldt, 1, &entry, sizeof entry) != 0) return false;
  }
  return is_code(code16_selector(0)) && is_code(code16_selector(place::batch - 1));
}

// 64-bit processes have null selectors in DS and ES, which is nothing to code of other sizes.
void load_data_segments(u32 selector) { asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(selector)); }

void find_code_sizes(Native::Shared& shared) {
  load_data_segments(kStack);
  shared.code32 = is_code(kCode32);
  shared.code16 = install_code16();
}

void enter_code(ucontext_t& context, isa::CodeSize size, u64 slot) {
  load_data_segments(size == isa::CodeSize::bits64 ? 0u : u32{kStack});  // each time: a host was seen to lose ES
  greg_t& segments = context.uc_mcontext.gregs[REG_CSGSFS];
  segments = static_cast<greg_t>((static_cast<u64>(segments) & 0x0000ffffffff0000) | code_selector(size, slot) |
                                 u64{kStack} << 48);
  context.uc_flags |= kSigcontextSs | kStrictRestoreSs;
}

void load_next(ucontext_t& context) {
  Native::Shared& s = *child.shared;
  if (child.index == s.count) {
    child.running = false;
    load_frame(context, child.home_registers, 0, child.layout);
    std::memcpy(context.uc_mcontext.gregs, child.home, sizeof child.home);
    return;
  }
  s.current = child.index;
  const Snapshot& start = s.initial[child.index];
  std::memcpy(reinterpret_cast<void*>(place::data), start.memory.data, place::data_size);
  std::memcpy(reinterpret_cast<void*>(place::stack), start.memory.stack, place::stack_size);
  const isa::CodeSize size = s.size[child.index];
  load_frame(context, start.regs, code_at(child.index) - code_base(size, child.index), child.layout);
  enter_code(context, size, child.index);
}

// INT1 is a trap by both manuals: RIP lies behind it. KVM on AMD takes its #DB and queues it again without moving RIP:
// there a #DB that Linux found no cause for in DR6 (TRAP_BRKPT) at an INT1 has its length added.
u64 int1_rip;
void note_int1(int, siginfo_t*, void* context) {
  auto& g = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  int1_rip = static_cast<u64>(g[REG_RIP]);
  g[REG_RIP] = g[REG_RAX];
}
bool int1_stays_in_place() {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_sigaction = note_int1;
  action.sa_flags = SA_SIGINFO;
  if (sigaction(SIGTRAP, &action, &before) != 0) return false;
  u64 behind;
  asm volatile("lea 1f(%%rip), %%rax; .byte 0xf1; 1:" : "=a"(behind) : : "memory");
  sigaction(SIGTRAP, &before, nullptr);
  return int1_rip != behind;
}

// Bytes of INT1; 0: it is none.
unsigned int1_length(const u8* code, bool rex) {
  for (unsigned i = 0; i < 15; i++) {
    const u8 b = code[i];
    const bool prefix = b == 0x66 || b == 0x67 || b == 0xf2 || b == 0xf3 || b == 0x26 || b == 0x2e || b == 0x36 ||
                        b == 0x3e || b == 0x64 || b == 0x65 || (rex && b >> 4 == 4);
    if (!prefix) return b == 0xf1 ? i + 1 : 0;
  }
  return 0;
}

void finish(const ucontext_t& context, Ending::Kind kind, const siginfo_t* info = nullptr) {
  Outcome& out = child.shared->outcome[child.index];
  const auto& g = context.uc_mcontext.gregs;
  save_frame(context, out.state.regs, child.layout);
  std::memcpy(out.state.memory.data, reinterpret_cast<const void*>(place::data), place::data_size);
  std::memcpy(out.state.memory.stack, reinterpret_cast<const void*>(place::stack), place::stack_size);
  out.ending = {kind, static_cast<u8>(g[REG_TRAPNO]), static_cast<u32>(g[REG_ERR]), static_cast<u64>(g[REG_CR2])};
  const isa::CodeSize size = child.shared->size[child.index];
  if (size != isa::CodeSize::bits64) drop_upper_halves(out.state.regs);
  const u64 at = code_base(size, child.index) + out.state.regs.rip, into = at - place::code;
  if (child.int1_stays && info && info->si_signo == SIGTRAP && info->si_code == TRAP_BRKPT && out.ending.vector == 1 &&
      into < place::code_size - 15)
    out.state.regs.rip += int1_length(reinterpret_cast<const u8*>(at), size == isa::CodeSize::bits64);
  child.index++;
}

[[noreturn]] void die(const char* step) {
  [[maybe_unused]] const auto n = ::write(2, step, std::strlen(step));
  _exit(99);
}

void map_fixed(u64 at, u64 size, int protection, int fd) {
  const int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  if (::mmap(reinterpret_cast<void*>(at), size, protection, flags, fd, 0) != reinterpret_cast<void*>(at))
    die("fuzz child: mmap failed\n");
}

void install_signals() {
  const u64 size = std::max<u64>(getauxval(AT_MINSIGSTKSZ), 16 * KiB) + 64 * KiB;
  stack_t stack{};
  stack.ss_sp = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack.ss_size = size;
  if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, nullptr) != 0) die("fuzz child: sigaltstack failed\n");
  struct sigaction action {};
  action.sa_sigaction = trapline_fuzz_entry;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGVTALRM})
    if (sigaction(s, &action, nullptr) != 0) die("fuzz child: sigaction failed\n");
}

// A sequence that computes a system call gets nothing from it.
void close_sandbox() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (!filter) die("fuzz child: seccomp_init failed\n");
  for (const int call : {SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group)})
    if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) != 0) die("fuzz child: seccomp_rule_add failed\n");
  if (seccomp_load(filter) != 0) die("fuzz child: seccomp_load failed\n");
}

void run_batch() {
  child.index = child.shared->first;
  child.seen_by_watchdog = ~u64{0};
  asm volatile("int3" ::: "memory", "cc");  // the handler goes through all sequences and comes back here
}

}  // namespace

extern "C" void trapline_fuzz_signal(int signal, siginfo_t* info, void* where) {
  auto& context = *static_cast<ucontext_t*>(where);
  if (signal == SIGVTALRM) {
    // Two ticks within one sequence: it loops.
    if (!child.running) return;
    if (child.seen_by_watchdog != child.index) {
      child.seen_by_watchdog = child.index;
      return;
    }
    finish(context, Ending::Kind::timeout);
  } else if (!child.running) {
    if (signal != SIGTRAP) die("fuzz child: fault outside of a sequence\n");
    child.running = true;
    std::memcpy(child.home, context.uc_mcontext.gregs, sizeof child.home);
    save_frame(context, child.home_registers, child.layout);
  } else {
    finish(context, Ending::Kind::event, info);
  }
  load_next(context);
}

void run_child(Native::Shared& shared, int code_fd, int channel) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  child.shared = &shared;
  child.layout = FrameLayout::of_host();
  map_fixed(place::code, place::code_size, PROT_READ | PROT_EXEC, code_fd);
  map_fixed(place::data, place::data_size, PROT_READ | PROT_WRITE, -1);
  map_fixed(place::stack, place::stack_size, PROT_READ | PROT_WRITE, -1);
  map_fixed(place::read_only, place::read_only_size, PROT_READ | PROT_WRITE, -1);
  std::memcpy(reinterpret_cast<void*>(place::read_only), shared.read_only, place::read_only_size);
  ::mprotect(reinterpret_cast<void*>(place::read_only), place::read_only_size, PROT_READ);
  ::syscall(SYS_arch_prctl, ARCH_SET_GS, place::gs_base);
  find_code_sizes(shared);
  child.int1_stays = int1_stays_in_place();
  install_signals();
  const itimerval tick{{0, kWatchdogMicroseconds}, {0, kWatchdogMicroseconds}};
  ::setitimer(ITIMER_VIRTUAL, &tick, nullptr);
  close_sandbox();
  for (;;) {
    char c;
    if (::read(channel, &c, 1) != 1) _exit(0);
    run_batch();
    if (::write(channel, &c, 1) != 1) _exit(0);
  }
}

}  // namespace trapline::fuzz
