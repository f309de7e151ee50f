// MOV to and from debug registers. Intel SDM Vol. 3B 17.2; Vol. 2B MOV.
#include "cpu/events.h"
#include "cpu/semantics.h"

namespace trapline::cpu::sem {

namespace {

constexpr u64 kGeneralDetect = 1u << 13;  // DR7.GD
constexpr u64 kDr6Open = dr6::breakpoints | dr6::bd | dr6::bs | dr6::bt;
constexpr u64 kDr7Open = 0xffff23ff, kDr7Fixed = 0x400;

Outcome general_detect(Vcpu& cpu) {
  cpu.debug.dr7 &= ~kGeneralDetect;  // so that the handler can use the registers
  cpu.fault = Fault{Vector::db, 0, 0, dr6::bd};
  return Outcome::fault;
}

Outcome write_debug(Vcpu& cpu, unsigned number, u64 value) {
  if (number >= 6 && value >> 32) return cpu.raise_gp();
  if (number < 4)
    cpu.debug.dr[number] = value;
  else if (number == 6)
    cpu.debug.dr6 = (value & kDr6Open) | dr6::fixed;
  else
    cpu.debug.dr7 = (value & kDr7Open) | kDr7Fixed;
  update_access(cpu);
  return Outcome::next;
}

}  // namespace

Outcome mov_dr(Vcpu& cpu, const isa::Insn& insn) {
  const bool to_debug = insn.op[0].kind == isa::Operand::Kind::dr;
  unsigned number = insn.op[to_debug ? 0 : 1].reg;
  if (number > 7) return cpu.raise_ud();
  if (number == 4 || number == 5) {
    if (cpu.cr4 & cr4::de) return cpu.raise_ud();
    number += 2;
  }
  if (cpu.cpl != 0) return cpu.raise_gp();
  if (cpu.debug.dr7 & kGeneralDetect) return general_detect(cpu);
  u64& r = cpu.gpr[insn.op[to_debug ? 1 : 0].reg & 15];
  const u64 mask = cpu.in_long64() ? ~u64{0} : 0xffffffff;
  if (to_debug) return write_debug(cpu, number, r & mask);
  const u64 value = number < 4 ? cpu.debug.dr[number] : number == 6 ? cpu.debug.dr6 : cpu.debug.dr7;
  r = value & mask;
  return Outcome::next;
}

}  // namespace trapline::cpu::sem
