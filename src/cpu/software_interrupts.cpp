// INT n, INT3, INT1, INTO, BOUND and the undefined instructions. Intel SDM Vol. 2A; virtual-8086 extensions: Vol.
// 3B 20.3.3.
#include "cpu/events.h"
#include "cpu/far_transfer.h"

namespace trapline::cpu {

namespace {

// CR4.VME: is INT `vector` the virtual-8086 program's own? The bit map ends where the I/O permission map begins.
bool redirected(Vcpu& cpu, u8 vector, bool& own) {
  own = false;
  u16 io_map;
  if (cpu.tr.limit < 0x67) return (void)cpu.raise_gp(0), false;
  if (!system_read(cpu, table_address(cpu, cpu.tr.base, 0x66), io_map)) return false;
  const u32 offset = io_map - 32u + vector / 8;
  if (io_map < 32 || offset > cpu.tr.limit) return (void)cpu.raise_gp(0), false;
  u8 bits;
  if (!system_read(cpu, table_address(cpu, cpu.tr.base, offset), bits)) return false;
  own = !(bits >> (vector & 7) & 1);
  return true;
}

// The program's own handler, through the IVT at linear address 0, as real mode would.
Outcome call_vm86_handler(Vcpu& cpu, u8 vector, u64 return_ip) {
  u32 target;
  if (!system_read(cpu, vector * 4u, target)) return Outcome::fault;
  const bool iopl3 = (cpu.sys_flags & flag::iopl) == flag::iopl;
  u32 image = cpu.rflags() & 0xffff;
  if (!iopl3) image = (image & ~flag::if_) | flag::iopl | (cpu.sys_flags & flag::vif ? flag::if_ : 0);
  StackWriter stack{cpu};
  if (!stack.push(image, 2) || !stack.push(cs_of(cpu).selector, 2) || !stack.push(return_ip, 2)) return Outcome::fault;
  cpu.gpr[isa::rsp] = stack.rsp();
  cs_of(cpu) = vm86_segment(static_cast<u16>(target >> 16));
  cpu.rip = target & 0xffff;
  cpu.sys_flags &= ~(flag::tf | flag::nt | flag::rf | (iopl3 ? flag::if_ : flag::vif));
  update_mode(cpu);
  return Outcome::jumped;
}

Outcome int_in_vm86(Vcpu& cpu, u8 vector, u64 return_ip) {
  bool own = false;
  if ((cpu.cr4 & cr4::vme) && !redirected(cpu, vector, own)) return Outcome::fault;
  if (own) return call_vm86_handler(cpu, vector, return_ip);
  if ((cpu.sys_flags & flag::iopl) != flag::iopl) return cpu.raise_gp(0);
  return deliver_event(cpu, EventKind::software_interrupt, vector, return_ip);
}

// The register operand, sign-extended.
template <class T>
Outcome check_bounds(Vcpu& cpu, const isa::Insn& insn) {
  const u64 address = effective_address(cpu, insn.mem, next_rip(cpu, insn));
  T lower, upper;
  if (!read(cpu, insn.mem.seg, address, lower) || !read(cpu, insn.mem.seg, address + sizeof(T), upper))
    return Outcome::fault;
  const T index = static_cast<T>(cpu.gpr[insn.op[0].reg & 15]);
  return index < lower || index > upper ? cpu.raise(Vector::br) : Outcome::next;
}

}  // namespace

namespace sem {

Outcome int_n(Vcpu& cpu, const isa::Insn& insn) {
  const u8 vector = static_cast<u8>(insn.imm);
  const u64 next = next_rip(cpu, insn);
  if (cpu.mode == Mode::vm86) return int_in_vm86(cpu, vector, next);
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
