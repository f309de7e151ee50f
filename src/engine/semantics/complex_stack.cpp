// Stack instructions in every width: PUSH and POP that stack.cpp leaves, PUSHA, POPA, ENTER, LEAVE. Intel SDM Vol. 2.
#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

u64 mask_of(unsigned bytes) { return bytes >= 8 ? ~u64{0} : (u64{1} << bytes * 8) - 1; }

void set_by_width(Vcpu& cpu, unsigned reg, u64 value, unsigned bytes) {
  u64& r = cpu.gpr[reg];
  r = bytes == 2 ? (r & ~u64{0xffff}) | (value & 0xffff) : value & mask_of(bytes);
}

Outcome push(Vcpu& cpu, const Insn& insn) {
  u64 value = insn.imm;  // sign-extended to the operand size
  if (insn.op[0].kind != Operand::Kind::imm && !cpu::load_operand(cpu, insn, insn.op[0], &value)) return Outcome::fault;
  return cpu::push(cpu, value, insn.operand_bytes) ? Outcome::next : Outcome::fault;
}

Outcome pop(Vcpu& cpu, const Insn& insn) {
  const u64 rsp = cpu.gpr[isa::rsp];
  u64 value = 0;
  if (!cpu::pop(cpu, &value, insn.operand_bytes)) return Outcome::fault;
  // A memory operand based on RSP is addressed after the increment.
  if (cpu::store_operand(cpu, insn, insn.op[0], value)) return Outcome::next;
  cpu.gpr[isa::rsp] = rsp;
  return Outcome::fault;
}

Outcome pusha(Vcpu& cpu, const Insn& insn) {
  const u64 rsp = cpu.gpr[isa::rsp];
  const unsigned bytes = insn.operand_bytes;
  for (unsigned reg = isa::rax; reg <= isa::rdi; reg++) {
    if (cpu::push(cpu, reg == isa::rsp ? rsp : cpu.gpr[reg], bytes)) continue;
    cpu.gpr[isa::rsp] = rsp;
    return Outcome::fault;
  }
  return Outcome::next;
}

// Intel's processors keep what they have popped when a later one faults (measured: docs/cpu-model.md).
Outcome popa(Vcpu& cpu, const Insn& insn) {
  const u64 rsp = cpu.gpr[isa::rsp];
  u64 value[8] = {};
  unsigned left = 8;
  while (left > 0 && cpu::pop(cpu, &value[left - 1], insn.operand_bytes)) left--;
  if (left > 0) cpu.gpr[isa::rsp] = rsp;
  if (left > 0 && cpu.vendor() != isa::Vendor::intel) return Outcome::fault;
  for (unsigned i = left; i < 8; i++)
    if (i != isa::rsp) set_by_width(cpu, i, value[i], insn.operand_bytes);
  return left > 0 ? Outcome::fault : Outcome::next;
}

// The frame pointers of the enclosing levels are copied from the old frame.
bool push_display(Vcpu& cpu, unsigned level, unsigned bytes, unsigned width, u64 frame) {
  u64 rbp = cpu.gpr[isa::rbp];
  for (unsigned i = 1; i < level; i++) {
    rbp -= bytes;
    u64 value = 0;
    Gva linear;
    const u64 offset = rbp & mask_of(width);
    if (!cpu::to_linear(cpu, Seg::ss, offset, bytes, cpu::Access::read, linear)) return false;
    if (!cpu::read_slow(cpu, Seg::ss, linear, &value, bytes) || !cpu::push(cpu, value, bytes)) return false;
  }
  return cpu::push(cpu, frame, bytes);
}

Outcome enter(Vcpu& cpu, const Insn& insn) {
  const unsigned bytes = insn.operand_bytes, width = cpu::stack_bytes(cpu);
  const u64 rsp = cpu.gpr[isa::rsp], size = insn.imm & 0xffff;
  const unsigned level = insn.imm2 & 31;
  bool ok = cpu::push(cpu, cpu.gpr[isa::rbp], bytes);
  const u64 frame = cpu.gpr[isa::rsp];
  if (ok && level > 0) ok = push_display(cpu, level, bytes, width, frame);
  const u64 top = (cpu.gpr[isa::rsp] - size) & mask_of(width);
  Gva linear;
  // The new top of stack must be writable (SDM: ENTER faults as a push there would).
  ok = ok && cpu::to_linear(cpu, Seg::ss, top, 1, cpu::Access::write, linear);
  if (ok && cpu::alignment_checks(cpu) && linear.raw & (bytes - 1)) {
    static_cast<void>(cpu.raise(cpu::Vector::ac));
    ok = false;
  }
  ok = ok && cpu::probe(cpu, Seg::ss, linear, 1, cpu::Access::write);
  if (!ok) {
    cpu.gpr[isa::rsp] = rsp;
    return Outcome::fault;
  }
  set_by_width(cpu, isa::rbp, frame, bytes);
  set_by_width(cpu, isa::rsp, top, width);
  return Outcome::next;
}

Outcome leave(Vcpu& cpu, const Insn& insn) {
  const u64 rsp = cpu.gpr[isa::rsp];
  set_by_width(cpu, isa::rsp, cpu.gpr[isa::rbp], cpu::stack_bytes(cpu));
  u64 value = 0;
  if (!cpu::pop(cpu, &value, insn.operand_bytes)) {
    cpu.gpr[isa::rsp] = rsp;
    return Outcome::fault;
  }
  set_by_width(cpu, isa::rbp, value, insn.operand_bytes);
  return Outcome::next;
}

}  // namespace

cpu::Semantic find_complex_stack(const Insn& insn) {
  const bool seg = insn.op[0].kind == Operand::Kind::seg;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return seg ? nullptr : push;
    case ZYDIS_MNEMONIC_POP:
      return seg ? nullptr : pop;
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
      return pusha;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
      return popa;
    case ZYDIS_MNEMONIC_ENTER:
      return enter;
    case ZYDIS_MNEMONIC_LEAVE:
      return leave;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
