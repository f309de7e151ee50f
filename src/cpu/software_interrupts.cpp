// INT n, INT3, INT1, INTO, BOUND and the undefined instructions. Intel SDM Vol. 2A; virtual-8086 extensions: Vol.
// 3B 20.3.3.
#include "cpu/events.h"
#include "cpu/far_transfer.h"

namespace trapline::cpu {

namespace {

template <class T>
Outcome check_bounds(Vcpu& cpu, const isa::Insn& insn) {
  const u64 address = effective_address(cpu, insn.mem, next_rip(cpu, insn));
  T lower, upper;
  if (!read(cpu, insn.mem.seg, address, lower) ||
      !read(cpu, insn.mem.seg, part_address(insn.mem, address, sizeof(T)), upper))
    return Outcome::fault;
  const T index = static_cast<T>(cpu.gpr[insn.op[0].reg & 15]);
  return index < lower || index > upper ? cpu.raise(Vector::br) : Outcome::next;
}

}  // namespace

namespace sem {

Outcome int_n(Vcpu& cpu, const isa::Insn& insn) {
  const u8 vector = static_cast<u8>(insn.imm);
  const u64 next = next_rip(cpu, insn);
  // Virtual-8086 extensions (CR4.VME) are not offered, so IOPL alone decides.
  if (cpu.mode == Mode::vm86 && (cpu.sys_flags & flag::iopl) != flag::iopl) return cpu.raise_gp(0);
  return deliver_event(cpu, EventKind::software_interrupt, vector, next);
}

Outcome int3(Vcpu& cpu, const isa::Insn& insn) {
  return deliver_event(cpu, EventKind::software_exception, static_cast<u8>(Vector::bp), next_rip(cpu, insn));
}

Outcome int1(Vcpu& cpu, const isa::Insn& insn) {
  return deliver_event(cpu, EventKind::privileged_software_exception, static_cast<u8>(Vector::db), next_rip(cpu, insn));
}

Outcome into(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.in_long64()) return cpu.raise_ud();
  if (!(cpu.rflags() & flag::of)) return Outcome::next;
  return deliver_event(cpu, EventKind::software_exception, static_cast<u8>(Vector::of), next_rip(cpu, insn));
}

Outcome bound(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.in_long64() || insn.op[1].kind != isa::Operand::Kind::mem) return cpu.raise_ud();
  return insn.operand_bytes == 2 ? check_bounds<i16>(cpu, insn) : check_bounds<i32>(cpu, insn);
}

Outcome undefined(Vcpu& cpu, const isa::Insn&) { return cpu.raise_ud(); }

}  // namespace sem
}  // namespace trapline::cpu
