// FXSAVE, FXRSTOR and their 64-bit forms. Intel SDM Vol. 1 section 10.5; the area: table 10-2.
#include <algorithm>
#include <cstring>

#include "cpu/fpu_state.h"

namespace trapline::cpu {

namespace {

constexpr unsigned kMxcsr = 24, kMxcsrMask = 28, kXmm = 160;
constexpr unsigned kWritten = 416, kArea = 512;  // bytes 416..511 are left to software, but must be there

bool is_wide(const isa::Insn& insn) {
  return insn.mnemonic == ZYDIS_MNEMONIC_FXSAVE64 || insn.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64;
}

bool may_execute(Vcpu& cpu, const Area& area, Access access) {
  if (cpu.cr0 & (cr0::em | cr0::ts)) return cpu.raise(Vector::nm) == Outcome::next;
  return area.aligned(16, access);
}

// Fast FXSAVE: ring 0 of 64-bit mode leaves the XMM registers and their place alone (APM Vol. 2 3.1.7, EFER.FFXSR).
unsigned saved_registers(const Vcpu& cpu) {
  const bool fast = (cpu.efer & efer::ffxsr) && cpu.in_long64() && cpu.cpl == 0;
  return fast ? 0 : vector_registers(cpu);
}

template <class T>
void put(u8* area, unsigned at, T v) {
  std::memcpy(area + at, &v, sizeof v);
}

}  // namespace

namespace sem {

Outcome fxsave(Vcpu& cpu, const isa::Insn& insn) {
  const Area area{cpu, insn};
  if (!may_execute(cpu, area, Access::write)) return Outcome::fault;
  const unsigned registers = saved_registers(cpu);
  const unsigned bytes =
      kXmm + registers * 16;  // XMM8..15 do not exist outside 64-bit mode: their place is not written
  // The end comes first, as on processors: with two pages missing, its page is the one reported.
  if (!area.probe_write(kArea - 1, 1) || !area.probe_write(0, kArea)) return Outcome::fault;
  u8 out[kWritten] = {};
  u8 x87[kX87ImageBytes] = {};
  x87_store_image(cpu, x87, is_wide(insn));
  std::memcpy(out, x87, sizeof x87);
  put(out, kMxcsr, cpu.vec.mxcsr);
  put(out, kMxcsrMask, mxcsr_mask(cpu));
  for (unsigned i = 0; i < registers; i++) std::memcpy(out + kXmm + i * 16, cpu.vec.zmm[i], 16);
  return area.write(0, out, bytes) ? Outcome::next : Outcome::fault;
}

Outcome fxrstor(Vcpu& cpu, const isa::Insn& insn) {
  const Area area{cpu, insn};
  if (!may_execute(cpu, area, Access::read)) return Outcome::fault;
  u8 in[kArea];
  if (!area.read(kArea - 1, in, 1) || !area.read(0, in, kArea)) return Outcome::fault;
  u32 mxcsr;
  std::memcpy(&mxcsr, in + kMxcsr, 4);
  if (mxcsr & ~mxcsr_mask(cpu)) return cpu.raise_gp();
  u8 x87[kX87ImageBytes];
  std::memcpy(x87, in, sizeof x87);
  x87_load_image(cpu, x87, is_wide(insn));
  cpu.vec.mxcsr = mxcsr;
  for (unsigned i = 0; i < saved_registers(cpu); i++) std::memcpy(cpu.vec.zmm[i], in + kXmm + i * 16, 16);
  return Outcome::next;
}

}  // namespace sem

}  // namespace trapline::cpu
