// The questions by which Front decides how an instruction is treated.
#pragma once

#include "engine/hostcode/lower.h"
#include "isa/table.h"

namespace trapline::engine::hostcode {

// Does the instruction table let it run as it is? What the table does not know is innocuous.
bool copied(const isa::Insn& i, bool ring0);
bool is_sensitive(const isa::Insn& i, isa::Ring ring);  // privileged or critical there
// No memory operand, or one that the look-up finds: no 16-bit address, no segment of which more than the base matters.
bool in_reach(const isa::Insn& i, const Context& c);
// Computation on general registers and memory that is the same instruction on the host.
bool is_plain(const cpu::Vcpu& cpu, const TranslatedInsn& p, const Context& c);
// MOV between the accumulator and a full address.
bool is_accumulator_offset(const TranslatedInsn& p, const Context& c);
// BT and its kin with a bit number in a register, which leads to any byte (SDM Vol. 2A BT).
bool is_bit_string(const isa::Insn& i, const Context& c);
bool is_xlat(const isa::Insn& i, const Context& c);
// PUSH, POP, LEAVE and ENTER of the stack's own width.
bool is_stack(const TranslatedInsn& p, const Context& c);
// Loads and stores of MXCSR that are the host's own.
bool is_mxcsr(const cpu::Vcpu& cpu, const isa::Insn& i, const Context& c, const Ready& ready);
// Gathers and scatters whose elements the look-up reaches, and MASKMOVs.
bool elements_reachable(const TranslatedInsn& p, const Context& c);
bool bytes_reachable(const isa::Insn& i, const Context& c);
// Sensitive instructions whose effect is a few moves.
bool is_inlined(const TranslatedInsn& p, const Context& c, const Ready& ready);
// An inlined STAC or CLAC behind which memory is seen with other rights.
bool turns(const TranslatedInsn& p, const Context& c);
// EMMS, FWAIT.
bool is_x87_state(ZydisMnemonic m);
// FNSTENV and FLDENV of 28 bytes.
bool is_environment(const isa::Insn& i, const Context& c);
bool is_direction(ZydisMnemonic m);
// Near branches of the mode's full width; sets p.ends. The interpreter has the others.
bool is_branch(TranslatedInsn& p, const Context& c);
bool keeps_x87_control(ZydisMnemonic m);
// Of one with a semantic.
bool ends_block(const isa::Insn& i);
bool is_nothing(const TranslatedInsn& p);

}  // namespace trapline::engine::hostcode
