#include "cage/cage.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "base/invariant.h"
#include "base/trace.h"
#include "channel/futex.h"
#include "channel/spin.h"

namespace trapline::cage {

namespace {

// In the order of the instruction encoding.
constexpr Greg kOrder[16] = {rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15};

constexpr u64 kFlagsOfUser = 0x254dd5;  // CF PF AF ZF SF TF DF OF NT RF AC ID
constexpr u64 kFlagsAlways = 0x202;     // IF and bit 1

// An honest cage answers within microseconds, unless the host gives it no CPU.
constexpr u64 kPatienceTicks = 6'000'000'000;
constexpr u64 kPollTicks = 250'000;  // what sleeping would cost

// Of the standard format, with what the host has enabled. SDM Vol. 1 13.2.
u64 xsave_bytes() {
  static const u64 bytes = [] {
    u32 a, b = 0, c, d;
    return __get_cpuid_count(0xd, 0, &a, &b, &c, &d) ? u64{b} : u64{576};
  }();
  return bytes;
}

// Nobody asks for a part of a page, or for the stub's own place.
void check_range(u64 stub, Gva address, u64 length) {
  INVARIANT(length != 0 && (address.raw | length) % kPageSize == 0, "an order for {}+{:#x}", address, length);
  INVARIANT(address.raw >= stub + kStubBytes || length <= stub - address.raw,
            "an order for {}+{:#x}, where the stub is", address, length);
}

}  // namespace

void Cage::map(Gva address, u64 length, int prot, int fd, u64 offset, bool populate) {
  check_range(stub(), address, length);
  INVARIANT(offset % kPageSize == 0, "a mapping of a file from {:#x} on", offset);
  INVARIANT((prot & (PROT_WRITE | PROT_EXEC)) != (PROT_WRITE | PROT_EXEC), "{} writable and executable", address);
  const u64 flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
  queue_.push_back({SYS_mmap,
                    {address.raw, length, static_cast<u64>(prot), parts_.nonce.with_flags(flags),
                     parts_.nonce.with_fd(static_cast<u64>(fd)), offset},
                    0});
}

void Cage::unmap(Gva address, u64 length) {
  check_range(stub(), address, length);
  queue_.push_back({SYS_munmap, {address.raw, length, 0, parts_.nonce.with_flags(0), parts_.nonce.with_fd(0), 0}, 0});
}

void Cage::protect(Gva address, u64 length, int prot) {
  check_range(stub(), address, length);
  INVARIANT((prot & (PROT_WRITE | PROT_EXEC)) != (PROT_WRITE | PROT_EXEC), "{} writable and executable", address);
  queue_.push_back(
      {SYS_mprotect,
       {address.raw, length, static_cast<u64>(prot), parts_.nonce.with_flags(0), parts_.nonce.with_fd(0), 0},
       0});
}

void Cage::set_bases(u64 fs, u64 gs) {
  const auto order = [&](int code, u64& known, u64 base) {
    if (base == known) return;
    known = base;
    queue_.push_back(
        {SYS_arch_prctl, {static_cast<u64>(code), base, 0, parts_.nonce.with_flags(0), parts_.nonce.with_fd(0), 0}, 0});
  };
  order(ARCH_SET_FS, fs_base_, fs);
  order(ARCH_SET_GS, gs_base_, gs);
}

void Cage::take_back_mappings() {
  std::erase_if(queue_, [](const Order& o) { return o.number != SYS_arch_prctl; });
}

// The first orders of the queue, as many as fit.
void Cage::send(u32 after) {
  INVARIANT(expected_ == 0 && !queue_.empty(), "orders before the last ones are proved, or none");
  Orders orders{};
  orders.count = static_cast<u32>(std::min<std::size_t>(queue_.size(), kMostOrders));
  orders.after = after;
  orders.token = expected_ = parts_.tokens.next() | 1;
  std::memcpy(orders.order, queue_.data(), orders.count * sizeof(Order));
  queue_.erase(queue_.begin(), queue_.begin() + orders.count);
  const std::size_t bytes = offsetof(Orders, order) + orders.count * sizeof(Order);
  const ssize_t sent = ::write(parts_.order_fd, &orders, bytes);
  if (sent < 0 && errno == EPIPE) return kill();  // somebody has killed it
  INVARIANT(sent == static_cast<ssize_t>(bytes), "the order pipe took {} of {} bytes", sent, bytes);
}

bool Cage::check_ack() {
  if (expected_ == 0) return true;
  const bool proved = parts_.shared->exchange.ack == expected_ || parts_.trusted;
  if (const u64 failed = parts_.shared->exchange.failed) TRACE(cages, "an order failed: {}", -static_cast<i64>(failed));
  expected_ = 0;
  if (!proved) kill();
  return proved;
}

// For the answer to orders alone.
bool Cage::await_quietly() {
  constexpr u64 kAsleepNs = 5'000'000;  // then it is checked that it is still alive
  const u64 start = __rdtsc();
  while (!stopped()) {
    // On one CPU it cannot answer while this thread polls.
    const u64 poll = affinity_ == Affinity::beside ? 0 : kPollTicks;
    if (channel::poll_for(poll, [&] { return stopped(); })) break;
    if (affinity_ == Affinity::apart)
      set_affinity(affinity_, ::sched_getcpu());  // this thread may have moved onto its CPU
    sleeps().store(1);
    if (const u32 now = calls().load(); now == turn_) channel::futex_wait(calls(), now, kAsleepNs);
    sleeps().store(0);
    if (!stopped() && (has_ended() || __rdtsc() - start > kPatienceTicks)) {
      kill();
      return false;
    }
  }
  turn_++;
  return true;
}

bool Cage::await_ready() { return await_quietly() && parts_.shared->exchange.failed == 0; }

bool Cage::carry_out() {
  while (!queue_.empty() && !dead_) {
    Exchange& x = parts_.shared->exchange;
    send(1);
    x.command = 1;
    x.answers.store(turn_);
    if (x.cage_sleeps.load()) channel::futex_wake(x.answers);
    if (!await_quietly() || !check_ack()) return false;
  }
  return !dead_;
}

void Cage::resume(const Registers& r, u64 xrstor, u32 components, u32 spin_ticks) {
  INVARIANT(xrstor >= kVectors || (xrstor % 64 == 0 && xrstor <= CAGE_STACK_BYTES - xsave_bytes()),
            "an XSAVE image at {:#x} of the signal stack", xrstor);
  Exchange& x = parts_.shared->exchange;
  while (queue_.size() > kMostOrders) {
    send(1);
    x.command = 1;
    x.answers.store(turn_);
    if (x.cage_sleeps.load()) channel::futex_wake(x.answers);
    if (!await_quietly() || !check_ack()) return;
  }
  if (dead_) return;
  for (unsigned i = 0; i < 16; i++) x.new_gregs[kOrder[i]] = r.gpr[i];
  x.new_fs_base = r.fs_base, x.new_gs_base = r.gs_base;
  const u64 place = xrstor == kNothing ? 0 : xrstor == kVectors ? stub() + CAGE_VECTORS : stub() + CAGE_STACK + xrstor;
  x.xrstor = place;
  x.xmask = components;
  x.spins.store(spin_ticks, std::memory_order_relaxed);
  const IretFrame frame{r.rip, 0x33, (r.rflags & kFlagsOfUser) | kFlagsAlways, r.gpr[4], 0x2b};
  std::memcpy(parts_.shared->stack + (CAGE_IRET - CAGE_STACK), &frame, sizeof frame);
  if (queue_.empty()) {
    x.command = 0;
  } else {
    send(0);
    x.command = 1;
  }
  x.answers.store(turn_);
  if (x.cage_sleeps.load()) channel::futex_wake(x.answers);
}

bool Cage::take(Stop& stop, Registers& r) {
  turn_++;
  if (!check_ack()) return false;
  const Exchange& x = parts_.shared->exchange;
  u64 g[24];
  std::memcpy(g, x.gregs, sizeof g);
  stop.signal = static_cast<int>(__atomic_load_n(&x.signal, __ATOMIC_RELAXED));
  stop.kept = __atomic_load_n(&x.kept, __ATOMIC_RELAXED) != 0;
  stop.inside = x.stopped_at - x.resumed_at;
  if (stop.kept) {
    stop.inside = 0;  // it has not come so far: the stamp is of another turn
    return true;
  }
  stop.trap = static_cast<u32>(g[Greg::trap]);
  stop.error = static_cast<u32>(g[Greg::error]);
  stop.cr2 = g[Greg::cr2];
  stop.code = static_cast<int>(x.siginfo[0]);
  stop.call_address = x.siginfo[1];
  stop.cs = static_cast<u16>(g[Greg::selectors]);
  stop.ds = x.ds, stop.es = x.es, stop.fs = x.fs, stop.gs = x.gs;
  if (stop.fs | stop.gs) fs_base_ = gs_base_ = ~u64{0};  // gone with the selectors
  const u64 offset = g[Greg::fpstate] - (stub() + CAGE_STACK);
  stop.fpstate = g[Greg::fpstate] % 64 == 0 && offset <= CAGE_STACK_BYTES - xsave_bytes() ? offset : kNothing;
  for (unsigned i = 0; i < 16; i++) r.gpr[i] = g[kOrder[i]];
  r.rip = g[Greg::rip];
  r.rflags = (g[Greg::rflags] & kFlagsOfUser) | kFlagsAlways;
  if (x.fsgsbase) r.fs_base = x.fs_base, r.gs_base = x.gs_base;
  return true;
}

void Cage::forget() {
  Exchange& x = parts_.shared->exchange;
  std::memset(x.gregs, 0, offsetof(Exchange, ack));
  std::memset(x.new_gregs, 0, sizeof x.new_gregs);
  std::memset(parts_.shared->vectors, 0, sizeof parts_.shared->vectors);
  // The stub waits with RSP below the frame, and keeps nothing there that it needs.
  std::memset(parts_.shared->stack, 0, sizeof parts_.shared->stack);
}

void Cage::kick() {
  if (!dead_) ::syscall(SYS_tgkill, parts_.pid, parts_.pid, kKick);
}

void Cage::set_affinity(Affinity affinity, int cpu) {
  if (dead_ || (affinity == affinity_ && cpu == affinity_cpu_)) return;
  affinity_ = affinity, affinity_cpu_ = cpu;
  cpu_set_t set;
  CPU_ZERO(&set);
  const auto here = static_cast<unsigned>(cpu);
  for (unsigned i = 0; i < CPU_SETSIZE; i++)
    if (affinity == Affinity::beside ? i == here : affinity == Affinity::anywhere || i != here) CPU_SET(i, &set);
  ::sched_setaffinity(parts_.pid, sizeof set, &set);  // a hint: refused, everything still works, only slower
}

void Cage::kill() {
  if (dead_) return;
  dead_ = true;
  queue_.clear();
  ::syscall(SYS_tgkill, parts_.pid, parts_.pid, SIGKILL);
  while (::waitpid(parts_.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool Cage::has_ended() {
  if (dead_) return true;
  if (::waitpid(parts_.pid, nullptr, WNOHANG) != parts_.pid) return false;
  dead_ = true;
  queue_.clear();
  return true;
}

}  // namespace trapline::cage
