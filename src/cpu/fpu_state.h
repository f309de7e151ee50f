// Shared by the FPU's semantics: areas in guest memory, and the x87 state as images.
#pragma once

#include "cpu/fpu.h"
#include "cpu/mmu.h"

namespace trapline::cpu {

// A memory operand of some hundred bytes. Addresses wrap at the instruction's address size. All false: cpu.fault set.
struct Area {
  Vcpu& cpu;
  const isa::Insn& insn;
  u64 offset;

  Area(Vcpu& c, const isa::Insn& i) : cpu{c}, insn{i}, offset{effective_address(c, i.mem, c.rip + i.length)} {}
  [[nodiscard]] bool read(u64 at, void* out, unsigned size) const;
  [[nodiscard]] bool write(u64 at, const void* in, unsigned size) const;
  [[nodiscard]] bool probe_write(u64 at, unsigned size) const;
  // All of [0, size) as it lies on the host, when the look-ups of its pages are there and these are neighbours. After
  // aligned(). Null: by the above.
  u8* whole(unsigned size, Access access) const;
  // #GP(0) unless the operand is aligned to `alignment` bytes; #AC(0) instead while alignment is checked. AMD: #AC for
  // operands not aligned to 4 bytes, and never for the XSAVE family (64).
  [[nodiscard]] bool aligned(u64 alignment, Access access) const;
  // #AC(0) while alignment is checked and the operand is not aligned to `alignment` bytes.
  [[nodiscard]] bool checked(u64 alignment, Access access) const;

 private:
  unsigned step(u64 at, unsigned size) const;
  bool linear(u64 at, unsigned size, Access access, Gva& out) const;
};

// FXSAVE layout: control and pointers 0..23, MXCSR 24..31, registers 32..159.
inline constexpr unsigned kX87ImageBytes = 160;

// A current FXSAVE image of control words and registers, with the guest's FOP, FIP and FDP: 64-bit pointers, or 32-bit
// ones with selectors. Bytes 24..31 are left alone.
void x87_store_image(Vcpu& cpu, u8 (&out)[kX87ImageBytes], bool wide);
void x87_load_image(Vcpu& cpu, const u8 (&in)[kX87ImageBytes], bool wide);
void x87_initialize(Vcpu& cpu,
                    bool clear_registers);  // the initial configuration of XRSTOR, or FNINIT's (registers stay)
bool x87_is_initial(Vcpu& cpu);
bool x87_pending(Vcpu& cpu);  // an unmasked exception waits: FSW.ES

bool x87_selectors_deprecated();  // CPUID.7:EBX[13]: FCS and FDS are saved as 0

u32 mxcsr_mask(const Vcpu& cpu);
// Vector registers that the mode can name.
inline unsigned vector_registers(const Vcpu& cpu) { return cpu.in_long64() ? 16 : 8; }

namespace sem {
// fpu.cpp
Outcome ldmxcsr(Vcpu&, const isa::Insn&);
Outcome stmxcsr(Vcpu&, const isa::Insn&);
Outcome vzero(Vcpu&, const isa::Insn&);
// fpu_x87.cpp
Outcome fninit(Vcpu&, const isa::Insn&);
Outcome fnclex(Vcpu&, const isa::Insn&);
Outcome fwait(Vcpu&, const isa::Insn&);
Outcome emms(Vcpu&, const isa::Insn&);
// fpu_environment.cpp
Outcome fnstenv(Vcpu&, const isa::Insn&);
Outcome fldenv(Vcpu&, const isa::Insn&);
Outcome fnsave(Vcpu&, const isa::Insn&);
Outcome frstor(Vcpu&, const isa::Insn&);
// fpu_fxsave.cpp
Outcome fxsave(Vcpu&, const isa::Insn&);
Outcome fxrstor(Vcpu&, const isa::Insn&);
// xsave.cpp, xsave_restore.cpp
Outcome xsave(Vcpu&, const isa::Insn&);
Outcome xrstor(Vcpu&, const isa::Insn&);
}  // namespace sem

}  // namespace trapline::cpu
