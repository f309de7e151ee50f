// Operands of instruction semantics: effective addresses, registers of any width, and the stack.
// Intel SDM Vol. 1 sections 3.7.5 (effective addresses), 6.2 (stack), 3.4.1.1 (32-bit results zero the upper half).
#include "cpu/mmu.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

u64 width_mask(unsigned bytes) { return bytes >= 8 ? ~u64{0} : (u64{1} << bytes * 8) - 1; }

template <class T>
bool read_as(Vcpu& cpu, Seg seg, u64 offset, u64* value) {
  T v;
  if (!read(cpu, seg, offset, v)) return false;
  *value = v;
  return true;
}

bool read_sized(Vcpu& cpu, Seg seg, u64 offset, unsigned bytes, u64* value) {
  switch (bytes) {
    case 1:
      return read_as<u8>(cpu, seg, offset, value);
    case 2:
      return read_as<u16>(cpu, seg, offset, value);
    case 4:
      return read_as<u32>(cpu, seg, offset, value);
    default:
      return read_as<u64>(cpu, seg, offset, value);
  }
}

bool write_sized(Vcpu& cpu, Seg seg, u64 offset, unsigned bytes, u64 value) {
  switch (bytes) {
    case 1:
      return write(cpu, seg, offset, static_cast<u8>(value));
    case 2:
      return write(cpu, seg, offset, static_cast<u16>(value));
    case 4:
      return write(cpu, seg, offset, static_cast<u32>(value));
    default:
      return write(cpu, seg, offset, value);
  }
}

void store_register(Vcpu& cpu, const isa::Operand& op, u64 value) {
  u64& r = cpu.gpr[op.reg & 15];
  if (op.high8)
    r = (r & ~u64{0xff00}) | (value & 0xff) << 8;
  else if (op.bytes >= 4)
    r = value & width_mask(op.bytes);
  else
    r = (r & ~width_mask(op.bytes)) | (value & width_mask(op.bytes));
}

// RSP after a push or pop: only the stack's width of it changes (a 32-bit one zeroes the upper half).
void set_stack_pointer(Vcpu& cpu, u64 value, unsigned width) {
  u64& rsp = cpu.gpr[isa::rsp];
  rsp = width == 2 ? (rsp & ~u64{0xffff}) | (value & 0xffff) : value & width_mask(width);
}

}  // namespace

u64 effective_address(const Vcpu& cpu, const isa::MemOperand& mem, u64 next_rip) {
  u64 address = static_cast<u64>(mem.disp);
  if (mem.base == isa::kRegRip)
    address += next_rip;
  else if (mem.base != isa::kNoReg)
    address += cpu.gpr[mem.base & 15];
  if (mem.index != isa::kNoReg && !mem.vsib) address += cpu.gpr[mem.index & 15] << mem.scale_log2;
  return address & width_mask(mem.address_bytes);
}

u64 part_address(const isa::MemOperand& mem, u64 address, u64 bytes) {
  return (address + bytes) & width_mask(mem.address_bytes);
}

bool load_operand(Vcpu& cpu, const isa::Insn& insn, const isa::Operand& op, u64* value) {
  using Kind = isa::Operand::Kind;
  if (op.kind == Kind::mem) {
    const u64 offset = effective_address(cpu, insn.mem, cpu.rip + insn.length);
    return read_sized(cpu, insn.mem.seg, offset, op.bytes, value);
  }
  if (op.kind == Kind::imm) {
    *value = insn.imm & width_mask(op.bytes);
    return true;
  }
  const u64 r = cpu.gpr[op.reg & 15];
  *value = op.high8 ? r >> 8 & 0xff : r & width_mask(op.bytes);
  return true;
}

bool store_operand(Vcpu& cpu, const isa::Insn& insn, const isa::Operand& op, u64 value) {
  if (op.kind == isa::Operand::Kind::mem) {
    const u64 offset = effective_address(cpu, insn.mem, cpu.rip + insn.length);
    return write_sized(cpu, insn.mem.seg, offset, op.bytes, value);
  }
  store_register(cpu, op, value);
  return true;
}

unsigned stack_bytes(const Vcpu& cpu) {
  if (cpu.in_long64()) return 8;
  return cpu.segment(Seg::ss).big() ? 4 : 2;
}

bool push(Vcpu& cpu, u64 value, unsigned bytes) {
  const unsigned width = stack_bytes(cpu);
  const u64 offset = (cpu.gpr[isa::rsp] - bytes) & width_mask(width);
  if (!write_sized(cpu, Seg::ss, offset, bytes, value)) return false;
  set_stack_pointer(cpu, offset, width);
  return true;
}

bool probe_push(Vcpu& cpu, unsigned bytes) {
  const u64 offset = (cpu.gpr[isa::rsp] - bytes) & width_mask(stack_bytes(cpu));
  Gva linear;
  return to_linear(cpu, Seg::ss, offset, bytes, Access::write, linear) &&
         probe(cpu, Seg::ss, linear, bytes, Access::write);
}

bool pop(Vcpu& cpu, u64* value, unsigned bytes) {
  const unsigned width = stack_bytes(cpu);
  const u64 offset = cpu.gpr[isa::rsp] & width_mask(width);
  if (!read_sized(cpu, Seg::ss, offset, bytes, value)) return false;
  set_stack_pointer(cpu, offset + bytes, width);
  return true;
}

}  // namespace trapline::cpu
