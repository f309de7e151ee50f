// Memory instructions of no great frequency: XLAT, MOVBE, MOVNTI, MOVDIRI, MOVDIR64B.
#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

Outcome xlat(Vcpu& cpu, const Insn& insn) {
  isa::MemOperand table;
  table.base = isa::rbx;
  table.address_bytes = insn.address_bytes;
  table.disp = low<u8>(cpu, isa::rax);
  u8 value;
  if (!cpu::read(cpu, insn.mem.seg, cpu::effective_address(cpu, table, 0), value)) return Outcome::fault;
  set_low<u8>(cpu, isa::rax, value);
  return Outcome::next;
}

u64 reversed(u64 v, unsigned bytes) { return __builtin_bswap64(v) >> (64 - bytes * 8); }

Outcome movbe(Vcpu& cpu, const Insn& insn) {
  u64 value = 0;
  const Operand& from = insn.op[1];
  if (!cpu::load_operand(cpu, insn, from, &value)) return Outcome::fault;
  return cpu::store_operand(cpu, insn, insn.op[0], reversed(value, from.bytes)) ? Outcome::next : Outcome::fault;
}

Outcome store_direct(Vcpu& cpu, const Insn& insn) {
  u64 value = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[1], &value)) return Outcome::fault;
  return cpu::store_operand(cpu, insn, insn.op[0], value) ? Outcome::next : Outcome::fault;
}

// Destination ES:reg, 64 bytes, aligned (SDM Vol. 2B).
Outcome movdir64b(Vcpu& cpu, const Insn& insn) {
  isa::MemOperand to;
  to.base = insn.op[0].reg & 15;
  to.address_bytes = insn.address_bytes;
  Gva from_linear, to_linear;
  if (!cpu::to_linear(cpu, insn.mem.seg, offset_of(cpu, insn), 64, cpu::Access::read, from_linear))
    return Outcome::fault;
  u8 line[64];
  // AMD's processors check the source as they do vector operands.
  if (cpu.vendor() == isa::Vendor::amd && from_linear.raw & 15 && cpu::alignment_checks(cpu) &&
      (!cpu.in_long64() || cpu::canonical(from_linear)))
    return cpu.raise(cpu::Vector::ac);
  if (!cpu::read_slow(cpu, insn.mem.seg, from_linear, line, sizeof line)) return Outcome::fault;
  if (!cpu::to_linear(cpu, Seg::es, cpu::effective_address(cpu, to, 0), 64, cpu::Access::write, to_linear))
    return Outcome::fault;
  if (to_linear.raw & 63) return cpu.raise_gp();
  return cpu::write_slow(cpu, Seg::es, to_linear, line, sizeof line) ? Outcome::next : Outcome::fault;
}

}  // namespace

cpu::Semantic find_complex_memory(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_XLAT:
      return xlat;
    case ZYDIS_MNEMONIC_MOVBE:
      return movbe;
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_MOVDIRI:
      return store_direct;
    case ZYDIS_MNEMONIC_MOVDIR64B:
      return movdir64b;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
