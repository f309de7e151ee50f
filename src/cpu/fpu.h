// x87, MMX, SSE, AVX and AVX-512 state and the instructions that save, restore and control it. Computation itself is
// executed by the host CPU on lowered operands: engine/vector/.
#pragma once

#include "cpu/semantics.h"

namespace trapline::cpu {

// Moves the x87/MMX registers between cpu.x87.image and this thread's x87 unit. Idempotent. Nothing else in the process
// uses x87.
void x87_unpark(Vcpu& cpu);  // -> live
void x87_park(Vcpu& cpu);    // -> image

// FXSAVE FXRSTOR XSAVE XSAVEOPT XSAVEC XSAVES XRSTOR XRSTORS FNSAVE FRSTOR FNSTENV FLDENV LDMXCSR STMXCSR FNINIT EMMS
// FWAIT VZEROUPPER VZEROALL XGETBV... : the semantic, or null.
Semantic find_fpu_semantic(const isa::Insn& insn);

// The checks every x87 / MMX / SSE / VEX / EVEX instruction makes before it executes (CR0.EM/TS/MP, CR4.OSFXSR/OSXSAVE,
// XCR0). Order and vectors: SDM Vol. 2A section 2.4 ff and Vol. 3A table 13-1. True: go on; false: cpu.fault set (#UD
// or #NM).
enum class Unit : u8 { x87, mmx, sse, avx, avx512, none };
bool check_unit(Vcpu& cpu, Unit unit);

// A waiting instruction finds an unmasked exception pending. CR0.NE = 1: #MF. NE = 0: the error goes to IRQ 13 by
// FERR#, and the instruction waits for that interrupt (repeat). From then on until the exception is cleared
// instructions run in spite of it (next), as with IGNNE# up, which a write to port F0 does on a PC. Without that, or
// when no interrupt comes of it, a processor would stand still. SDM Vol. 1 8.7, appendix D.
Outcome x87_error(Vcpu& cpu);
// After anything that may have cleared the exception: FERR# goes down with it.
void x87_update_ferr(Vcpu& cpu);

void reset_fpu(Vcpu& cpu);  // RESET values; INIT leaves the state alone

}  // namespace trapline::cpu
