// How emitted code reaches the guest's memory: what an engine adds to Lowering.
#pragma once

#include <vector>

#include "engine/emit/emitter.h"

namespace trapline::engine::hostcode {

using namespace emit;

class Lowering;
struct Context;
struct TranslatedInsn;
struct ExitStub;
struct RunningMode;

// A guest address in emitted code: base + disp, or a constant (in R10 as the base, or, without a base, in disp).
struct Place {
  u8 base = kNone;
  i32 disp = 0;
  bool constant = false;
  bool linear = false;  // a constant that moves with the code
  u64 address = 0;
};

// One access's part in a shared look-up.
struct SharedLookup {
  static constexpr unsigned kSlots = 16;  // of State::shared
  static constexpr u8 kNone = 0xff;
  // Of all accesses that share. Wide enough for most stack frames and structures; a wider one lies across the end of a
  // page more often.
  static constexpr u16 kSpan = 512;
  u8 slot = kNone;     // where the addend is kept
  bool leads = false;  // makes the look-up, for bytes lo .. lo + span - 1, counted from its own first one
  bool write = false;  // leader: for writing, because one of the others writes
  i32 lo = 0;
  u16 span = 0;
};

class MemoryLowering {
 public:
  virtual ~MemoryLowering() = default;
  // Before a block is lowered: says which of its accesses share a look-up.
  virtual void prepare(const Context& context, std::vector<TranslatedInsn>& pieces) const = 0;
  virtual void begin_block() = 0;
  // Emits what makes the bytes at `place` reachable. What fails goes to `stub` (its size and write are set), which
  // goes on at stub.resume, before all this, or, once it has found them, at the `hit` that is noted here. Clobbers
  // R11; what is in place.base must stay there.
  virtual void reach(Lowering& to, const Place& place, unsigned size, bool write, const SharedLookup& share,
                     ExitStub& stub) = 0;
  // The access itself, behind reach().
  virtual Mem reached(const Place& place) const = 0;
  // Behind the block: what reach() has left to be done there, by the number it gave.
  virtual void tail(Lowering& to, u32 number) = 0;
  // The operand `slot` of the jump cache, counted from its end. May emit; clobbers slot.index and `free`.
  virtual Mem jump_slot(Emitter& e, Mem slot, u8 free) const = 0;
  // From here on memory is reached as in this mode, and it is the one that runs. Clobbers RCX.
  virtual void turn(Emitter& e, const RunningMode& to) const = 0;
  // A thunk that may do, before C++ does, what `stub` calls it for: a failed access, given the address in RCX, or a
  // string instruction with REP, given the count there. 0: none.
  virtual u64 thunk(const ExitStub& stub, bool bits64) const = 0;
  // A thunk for behind the copy of a storing instruction that the thunk of `stub` has led to other memory: puts what it
  // has stored in its place, and goes on at R11.
  virtual u64 put_back(const ExitStub& stub) const = 0;
  // Of code that is moved: what a Fixup of kind look_up or look_up_w holds for this address.
  virtual u64 constant(const Fixup& fixup, Gva linear) const = 0;
};

}  // namespace trapline::engine::hostcode
