// The core's side of one cage: a process that holds the user half of one guest address space and runs guest user code
// on the CPU as it is. docs/cages.md.
//
// The cage is hostile from its first guest instruction on: whatever is read from `shared` is read once and checked by
// whoever uses it. Thread: the one vCPU that uses the cage.
#pragma once

#include <sys/types.h>

#include <span>
#include <vector>

#include "base/addr.h"
#include "base/result.h"
#include "base/types.h"
#include "cage/filter.h"
#include "cage/layout.h"
#include "cage/token.h"

namespace trapline::cage {

// The signal that stops guest code.
inline constexpr int kKick = 10;  // SIGUSR1

// Registers as the guest has them; indices of `gpr` as in the instruction encoding (RAX RCX RDX RBX RSP RBP RSI RDI R8..).
struct Registers {
  u64 gpr[16] = {};
  u64 rip = 0;
  u64 rflags = 0;
  u64 fs_base = 0, gs_base = 0;
};

// Where the cage stopped, and why. Copied from the exchange page, unchecked but for its form.
struct Stop {
  int signal = 0;           // 0: it was asked to; kKick; SIGSYS, SIGSEGV, SIGTRAP ...
  bool kept = false;        // the registers are those that were given
  u32 trap = 0, error = 0;  // of the CPU's exception
  u64 cr2 = 0;
  int code = 0;          // siginfo_t::si_code
  u64 call_address = 0;  // SIGSYS: behind the instruction
  u16 cs = 0, ds = 0, es = 0, fs = 0, gs = 0;
  u64 inside = 0;   // TSC ticks in the guest, as the cage says
  u64 fpstate = 0;  // where in the signal stack the XSAVE image is (offset); ~0: nowhere
};

class Cage {
 public:
  // What the core needs of a cage that has been made (pool.h).
  struct Parts {
    pid_t pid = -1;
    int order_fd = -1;
    Shared* shared = nullptr;
    Nonce nonce{};
    Tokens tokens;
    u64 stub = kStub;
    bool trusted = false;  // for tests: what it says is not proved
  };
  explicit Cage(const Parts& parts) : parts_{parts} {}

  Shared& shared() { return *parts_.shared; }
  pid_t pid() const { return parts_.pid; }
  // Where its stub begins and ends.
  u64 stub() const { return parts_.stub; }
  u64 stub_end() const { return parts_.stub + kStubBytes; }
  bool dead() const { return dead_; }

  // Has it closed its filter behind it? Waits for it; once, before all else.
  bool await_ready();

  // -- Mappings. Queued until the next `resume` or `carry_out`; all addresses and lengths in whole pages.
  void map(Gva address, u64 length, int prot, int fd, u64 offset, bool populate);
  void unmap(Gva address, u64 length);
  void protect(Gva address, u64 length, int prot);
  void set_bases(u64 fs, u64 gs);  // hosts without FSGSBASE: what has changed
  bool idle() const { return queue_.empty(); }
  std::size_t orders() const { return queue_.size(); }
  void take_back_mappings();  // as if none of what is queued had been given

  // Carries out what is queued, and comes back when the cage has proved that it has. False: it has not (`dead` then).
  bool carry_out();

  // Another guest program will use it: nothing of the last one's registers stays in the pages that it can read.
  void forget();

  // -- Running. What `registers` and `xrstor` say is taken over; then guest code runs until `stopped` says so.
  // xrstor: offset of an XSAVE image in the signal stack, or kVectors for `shared().vectors`; ~0: vectors are left.
  static constexpr u64 kVectors = ~u64{0} - 1, kNothing = ~u64{0};
  void resume(const Registers& registers, u64 xrstor, u32 components, u32 spin_ticks);
  bool stopped() const { return parts_.shared->exchange.calls.load(std::memory_order_acquire) == turn_ + 1; }
  std::atomic<u32>& calls() { return parts_.shared->exchange.calls; }
  std::atomic<u32>& sleeps() { return parts_.shared->exchange.core_sleeps; }
  u32 turn() const { return turn_; }
  // Once `stopped`: why and where. Registers are filled in unless `kept`. False: it lied about its orders, and is dead.
  bool take(Stop& stop, Registers& registers);
  // It has stopped, and will not go on soon: others may need the CPU that it polls on.
  void rest() { parts_.shared->exchange.spins.store(0, std::memory_order_relaxed); }
  void kick();
  // Where the host may run it: beside the core on this CPU, or anywhere but there. Remembered: repeating costs nothing.
  enum class Affinity : u8 { anywhere, beside, apart };
  void set_affinity(Affinity affinity, int cpu);
  // Kills it and waits until it is gone. For cages that lie or do not answer.
  void kill();
  // Has it ended by itself?
  bool has_ended();

 private:
  void send(u32 after);
  bool await_quietly();
  bool check_ack();
  Parts parts_;
  std::vector<Order> queue_;
  u32 turn_ = 0;      // answers given = calls taken
  u64 expected_ = 0;  // the token of the orders under way; 0: none
  bool dead_ = false;
  u64 fs_base_ = 0, gs_base_ = 0;
  Affinity affinity_ = Affinity::anywhere;
  int affinity_cpu_ = -1;
};

}  // namespace trapline::cage
