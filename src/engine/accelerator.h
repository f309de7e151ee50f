// The seam between the interpreter's run loop and an engine that takes over what runs often. Blocks become hot by being
// entered; everything that the engine does not do itself is left to the interpreter, one instruction at a time.
#pragma once

#include <functional>
#include <string>

#include "cpu/vcpu.h"

namespace trapline::engine {

// Why an accelerator has returned to the run loop.
enum class ExitReason : u8 {
  nothing,   // no instruction has been executed: interpret
  boundary,  // look at events and go on
  one,       // the instruction at cpu.rip is the interpreter's: execute it alone
  fault,     // cpu.fault is to be delivered
  halt,
  stop,
};

// A page of guest memory that translated code reaches without asking the MMU.
struct Reach {
  Gva page;
  Hva host;
  u32 need = 0;           // the permission (cpu::perm) of the accesses that may use it
  bool over_end = false;  // accesses over the end of the page: none may
};

// How often the interpreter has executed the code around a block that it calls hot.
class Profile {
 public:
  // Has what begins at `place` been entered at least half as often as a hot block, in mode `key`?
  virtual bool often(Gpa place, u32 key) const = 0;

 protected:
  ~Profile() = default;
};

struct Accelerator {
  virtual ~Accelerator() = default;

  // Runs translated code from cpu.rip on, until cpu.retired would pass `limit`. `key`: engine::mode_key(cpu).
  // cpu is exact on return.
  virtual ExitReason run(cpu::Vcpu& cpu, u32 key, u64 limit) = 0;
  // The block at cpu.rip is hot. True: run() has something for it that it did not have before.
  virtual bool translate(cpu::Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) = 0;
  virtual void flush() = 0;
  // User code at cpu.rip is for `run` now, however seldom it has run. Asked for CPL 3 only.
  virtual bool takes(const cpu::Vcpu& cpu) {
    static_cast<void>(cpu);
    return false;
  }
  // Entries before a block counts as hot.
  virtual u32 threshold() const = 0;

  // -- For --verify (engine/verify/), which runs every stretch twice
  // From now on `run` executes at most one block, or one stay of user code where it is not counted; leaves with ExitReason::one before an instruction that cannot be done twice
  // (cpu::find_semantic), links nothing, and counts. False: cannot.
  virtual bool go_block_by_block() { return false; }
  // The last `run` has executed instructions that are not in cpu.retired: where it has ended its state alone says.
  virtual bool uncounted() const { return false; }
  // Writes of translated code to any page come by cpu::probe again.
  virtual void revoke_writes() {}
  // Calls `see` with all that code translated so far may reach, or (not `all`) with what has come since the last call.
  virtual void each_reach(bool all, const std::function<void(const Reach&)>& see) {
    static_cast<void>(all), static_cast<void>(see);
  }
  // Of the block that `run` has entered last: its guest and host code side by side, for people.
  virtual std::string listing() const { return {}; }
};

}  // namespace trapline::engine
