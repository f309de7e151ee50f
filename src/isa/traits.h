// What engines and the fuzzer need to know of a mnemonic beyond its operands: one row each in isa/traits.inc, in place of
// a list of names wherever it matters. isa/table.h says what is sensitive and why; this says what changes and who
// handles it.
#pragma once

#include <Zydis/Zydis.h>

#include "isa/insn.h"

namespace trapline::isa {

// Who has the meaning of it.
enum class Semantics : u8 {
  none,         // the engines: computation, near branches, the vector unit
  system,       // cpu/semantics.h, for every form
  fpu,          // cpu/fpu.h, for every form
  by_operands,  // cpu/semantics.h for some forms, as operands decide
};

// What a block of the interpreter does behind its semantic.
enum class BlockAfter : u8 {
  goes_on,
  ends,
  by_operands,
};

// What an instruction may change of that which decides how others execute. Forms with operands may change less.
namespace change {
inline constexpr u16 nothing = 0,
                     mode = 1,  // how bytes decode, the ring, the segments
    access = 2,                 // the rights with which memory is looked at
    mapping = 4,                // what is mapped, or where
    flow = 8,                   // RIP is not that of the next instruction
    interrupts = 16,            // may let an interrupt in that was held back
    outside = 32,               // a device, the monitor or the APIC has acted
    x87_control = 64;           // the x87 control word, or all of x87's state
}  // namespace change

namespace trait {
inline constexpr u32 none = 0,
                     // Engines: the translator
    host_same = 1,  // computes on general registers and memory: the host's own instruction does it
    no_effect = 2,
                     inlined = 4,  // virtual state in a few moves, where mode and ring allow
    conditional = 8, bit_test = 16,
                     // Engines: the vector unit
    not_vector = 1 << 5,       // in spite of its extension: fences, POPCNT
    uses_mxcsr = 1 << 6,       // although its exception class does not say so
    dword_mask = 1 << 7,       // one opmask bit governs four bytes, though its elements are narrower
    unaligned = 1 << 8,        // 16-byte operands of legacy SSE that may lie anywhere
    whole_operand = 1 << 9,    // accesses all of it whatever the opmask says: E4NF, in Zydis E4
    nonwaiting = 1 << 10,      // x87: does not look at pending exceptions (SDM Vol. 1 8.3.12)
    keeps_pointers = 1 << 11,  // x87: leaves FIP, FDP and FOP alone
    // The fuzzer
    host_state = 1 << 12,       // its outcome, or what it leaves behind, is the host's or its kernel's
    unsettled = 1 << 13,        // implementation dependent on Intel
    saves_state = 1 << 14,      // XSAVE, XRSTOR: an area of its own
    faults_in_ring3 = 1 << 15;  // whatever its operands
}  // namespace trait

struct Traits {
  Semantics semantics = Semantics::none;
  BlockAfter block = BlockAfter::goes_on;
  u16 changes = change::nothing;
  u32 is = trait::none;
  const char* feature = nullptr;  // CPUID feature without which it is #UD, of integer instructions; null: always there

  constexpr bool has(u32 bits) const { return is & bits; }
  constexpr bool may_change(u16 bits) const { return changes & bits; }
};

const Traits& traits(ZydisMnemonic mnemonic);

// Of an instruction with a semantic: it changes neither mode nor flow nor what interrupts may come, so that a block goes
// on behind it.
bool block_goes_on(const Insn& insn);

}  // namespace trapline::isa
