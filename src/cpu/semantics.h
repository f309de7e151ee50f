// The meaning of every instruction that is not plain computation: control transfers between segments and rings, system
// registers, descriptors, ports, flags beyond the arithmetic ones, CPU identity and time. Engines call these; none has
// its own.
//
// Convention: on entry cpu.rip is the instruction's address and cpu.retired excludes it. All privilege, mode and
// operand checks happen here, in the manual's order. See cpu/fault.h for Outcome.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::cpu {

using Semantic = Outcome (*)(Vcpu&, const isa::Insn&);

// The semantic of a sensitive or otherwise non-plain instruction, or null when engines must know it themselves
// (integer, string, near control flow) or the vector unit does (cpu/fpu.h). Never null for what the list below names.
Semantic find_semantic(const isa::Insn& insn);

namespace sem {
// flags.cpp
Outcome pushf(Vcpu&, const isa::Insn&);
Outcome popf(Vcpu&, const isa::Insn&);
Outcome cli(Vcpu&, const isa::Insn&);
Outcome sti(Vcpu&, const isa::Insn&);
Outcome stac(Vcpu&, const isa::Insn&);
Outcome clac(Vcpu&, const isa::Insn&);
// transfer.cpp: far CALL, JMP, RET; INT n, INT3, INT1, INTO, IRET; SYSCALL, SYSRET, SYSENTER, SYSEXIT; BOUND, UD0-2
Outcome far_call(Vcpu&, const isa::Insn&);
Outcome far_jmp(Vcpu&, const isa::Insn&);
Outcome far_ret(Vcpu&, const isa::Insn&);
Outcome int_n(Vcpu&, const isa::Insn&);
Outcome int3(Vcpu&, const isa::Insn&);
Outcome int1(Vcpu&, const isa::Insn&);
Outcome into(Vcpu&, const isa::Insn&);
Outcome iret(Vcpu&, const isa::Insn&);
Outcome syscall(Vcpu&, const isa::Insn&);
Outcome sysret(Vcpu&, const isa::Insn&);
Outcome sysenter(Vcpu&, const isa::Insn&);
Outcome sysexit(Vcpu&, const isa::Insn&);
Outcome bound(Vcpu&, const isa::Insn&);
Outcome undefined(Vcpu&, const isa::Insn&);  // UD0, UD1, UD2
// segments.cpp
Outcome mov_to_seg(Vcpu&, const isa::Insn&);
Outcome mov_from_seg(Vcpu&, const isa::Insn&);
Outcome push_seg(Vcpu&, const isa::Insn&);
Outcome pop_seg(Vcpu&, const isa::Insn&);
Outcome load_far_pointer(Vcpu&, const isa::Insn&);  // LDS LES LFS LGS LSS
Outcome swapgs(Vcpu&, const isa::Insn&);
Outcome rdwr_fsgsbase(Vcpu&, const isa::Insn&);
// descriptors.cpp: SGDT SIDT SLDT STR SMSW LGDT LIDT LLDT LTR LMSW LAR LSL VERR VERW ARPL
Outcome descriptor_table(Vcpu&, const isa::Insn&);
Outcome descriptor_query(Vcpu&, const isa::Insn&);
// control_registers.cpp: MOV CR; debug_registers.cpp: MOV DR; control.cpp: CLTS, INVLPG, INVPCID, INVD, WBINVD,
// WBNOINVD, HLT, MONITOR, MWAIT, PAUSE-likes, XSETBV, XGETBV, RDPKRU
Outcome mov_cr(Vcpu&, const isa::Insn&);
Outcome mov_dr(Vcpu&, const isa::Insn&);
Outcome control(Vcpu&, const isa::Insn&);
// msr.cpp: RDMSR WRMSR; identity.cpp: CPUID RDTSC RDTSCP RDPID RDPMC RDRAND RDSEED; hypercall.cpp: VMCALL VMMCALL
Outcome rdmsr(Vcpu&, const isa::Insn&);
Outcome wrmsr(Vcpu&, const isa::Insn&);
Outcome identity(Vcpu&, const isa::Insn&);
Outcome hypercall(Vcpu&, const isa::Insn&);
// ports.cpp: IN OUT INS OUTS, with the I/O permission bitmap
Outcome in_out(Vcpu&, const isa::Insn&);
Outcome ins_outs(Vcpu&, const isa::Insn&);
}  // namespace sem

// Shared helpers. Effective address (before segmentation) of insn.mem; `next_rip` for RIP-relative operands.
u64 effective_address(const Vcpu& cpu, const isa::MemOperand& mem, u64 next_rip);
// Where the part of an operand lies that is an access of its own, `bytes` behind its first byte: cut to the address
// size, as each access's address is. One access goes on past the end of 32-bit addresses (measured: docs/cpu-model.md).
u64 part_address(const isa::MemOperand& mem, u64 address, u64 bytes);
// Reads and writes of a general-register or memory operand of 1, 2, 4 or 8 bytes (32-bit register writes zero the upper
// half).
bool load_operand(Vcpu& cpu, const isa::Insn& insn, const isa::Operand& op, u64* value);
bool store_operand(Vcpu& cpu, const isa::Insn& insn, const isa::Operand& op, u64 value);
// Stack width now: 8 in 64-bit mode, else by SS.B. Pushes do not move RSP when they fault.
unsigned stack_bytes(const Vcpu& cpu);
bool push(Vcpu& cpu, u64 value, unsigned bytes);
bool pop(Vcpu& cpu, u64* value, unsigned bytes);
bool probe_push(Vcpu& cpu, unsigned bytes);  // faults as push() would; nothing is written

// MSR access without an instruction (boot set-up, debugger, VMCALL). False: #GP(0) would be raised.
bool msr_read(Vcpu& cpu, u32 index, u64* value);
bool msr_write(Vcpu& cpu, u32 index, u64 value);
// MOV CRn without an instruction. False: cpu.fault set.
bool write_cr0(Vcpu& cpu, u64 value);
bool write_cr3(Vcpu& cpu, u64 value);
bool write_cr4(Vcpu& cpu, u64 value);

}  // namespace trapline::cpu
