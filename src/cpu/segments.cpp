// Segment registers: MOV, PUSH, POP, LDS and its kin, SWAPGS, RD/WR FS/GSBASE. Intel SDM Vol. 2B, MOV; Vol.
// 3A 3.4.4, 5.7.
#include "cpu/descriptor.h"
#include "cpu/far_transfer.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

// A null SS is fine for 64-bit code of rings 0 to 2, which does not look at it.
bool null_stack_allowed(const Vcpu& cpu, u16 selector) {
  return cpu.in_long64() && cpu.cpl != 3 && rpl_of(selector) == cpu.cpl;
}

// Everything of a load but the write: `out` is the register's new content. False: cpu.fault set.
bool check_load(Vcpu& cpu, Seg seg, u16 selector, Segment& out) {
  if (cpu.mode == Mode::real) {
    out = cpu.segment(seg);
    load_real_segment(out, selector);
    return true;
  }
  if (cpu.mode == Mode::vm86) {
    out = vm86_segment(selector);
    return true;
  }
  if (seg != Seg::ss) return check_data_segment(cpu, selector, cpu.cpl, Vector::gp, out);
  if (null_selector(selector) && null_stack_allowed(cpu, selector)) {
    out = null_segment(selector);
    out.attr = static_cast<u16>(cpu.cpl << 5);
    return true;
  }
  return check_stack_segment(cpu, selector, cpu.cpl, Vector::gp, out);
}

bool load_segment(Vcpu& cpu, Seg seg, u16 selector) {
  Segment loaded;
  if (!check_load(cpu, seg, selector, loaded)) return false;
  cpu.segment(seg) = loaded;
  update_segment(cpu, seg);
  return true;
}

bool valid(u8 seg) { return seg <= static_cast<u8>(Seg::gs); }

// The segment register operand of PUSH and POP.
u8 stack_operand(const isa::Insn& insn) {
  return insn.op[0].kind == isa::Operand::Kind::seg ? insn.op[0].reg : static_cast<u8>(Seg::none);
}

Seg far_pointer_segment(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
      return Seg::ds;
    case ZYDIS_MNEMONIC_LES:
      return Seg::es;
    case ZYDIS_MNEMONIC_LFS:
      return Seg::fs;
    case ZYDIS_MNEMONIC_LGS:
      return Seg::gs;
    case ZYDIS_MNEMONIC_LSS:
      return Seg::ss;
    default:
      return Seg::none;
  }
}

}  // namespace

namespace sem {

Outcome mov_to_seg(Vcpu& cpu, const isa::Insn& insn) {
  const u8 seg = insn.op[0].reg;
  if (!valid(seg) || static_cast<Seg>(seg) == Seg::cs) return cpu.raise_ud();
  // The source is 16 bits wide whatever the operand size says.
  isa::Operand source = insn.op[1];
  source.bytes = 2;
  u64 selector;
  if (!load_operand(cpu, insn, source, &selector)) return Outcome::fault;
  if (!load_segment(cpu, static_cast<Seg>(seg), static_cast<u16>(selector))) return Outcome::fault;
  if (static_cast<Seg>(seg) == Seg::ss) cpu.interrupt_shadow = true;
  return Outcome::next;
}

Outcome mov_from_seg(Vcpu& cpu, const isa::Insn& insn) {
  const u8 seg = insn.op[1].reg;
  if (!valid(seg)) return cpu.raise_ud();
  isa::Operand destination = insn.op[0];
  if (destination.kind == isa::Operand::Kind::mem) destination.bytes = 2;
  return store_operand(cpu, insn, destination, cpu.seg[seg].selector) ? Outcome::next : Outcome::fault;
}

Outcome push_seg(Vcpu& cpu, const isa::Insn& insn) {
  const u8 seg = stack_operand(insn);
  if (!valid(seg)) return cpu.raise_ud();
  StackWriter stack{cpu};
  // With a 32-bit operand Intel's recent processors write 16 bits into the slot (Vol. 2B, PUSH), AMD's 32.
  const unsigned width = insn.operand_bytes;
  const unsigned written = width == 4 && cpu.vendor() == isa::Vendor::intel ? 2 : width;
  if (!stack.push(cpu.seg[seg].selector, width, written)) return Outcome::fault;
  cpu.gpr[isa::rsp] = stack.rsp();
  return Outcome::next;
}

Outcome pop_seg(Vcpu& cpu, const isa::Insn& insn) {
  const u8 seg = stack_operand(insn);
  if (!valid(seg) || static_cast<Seg>(seg) == Seg::cs) return cpu.raise_ud();
  StackReader stack{cpu};
  u64 selector;
  if (!stack.pop(selector, insn.operand_bytes)) return Outcome::fault;
  if (!load_segment(cpu, static_cast<Seg>(seg), static_cast<u16>(selector))) return Outcome::fault;
  cpu.gpr[isa::rsp] = stack.rsp();
  if (static_cast<Seg>(seg) == Seg::ss) cpu.interrupt_shadow = true;
  return Outcome::next;
}

Outcome load_far_pointer(Vcpu& cpu, const isa::Insn& insn) {
  const Seg seg = far_pointer_segment(insn.mnemonic);
  if (seg == Seg::none || insn.op[1].kind != isa::Operand::Kind::mem) return cpu.raise_ud();
  FarPointer pointer;
  if (!load_far_operand(cpu, insn, pointer)) return Outcome::fault;
  if (!load_segment(cpu, seg, pointer.selector)) return Outcome::fault;
  return store_operand(cpu, insn, insn.op[0], pointer.offset) ? Outcome::next : Outcome::fault;
}

Outcome swapgs(Vcpu& cpu, const isa::Insn&) {
  if (!cpu.in_long64()) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  Segment& gs = cpu.segment(Seg::gs);
  const u64 base = gs.base;
  gs.base = gs.linear_base = cpu.msr.kernel_gs_base;
  cpu.msr.kernel_gs_base = base;
  return Outcome::next;
}

Outcome rdwr_fsgsbase(Vcpu& cpu, const isa::Insn& insn) {
  if (!cpu.in_long64() || !(cpu.cr4 & cr4::fsgsbase)) return cpu.raise_ud();
  const bool fs = insn.mnemonic == ZYDIS_MNEMONIC_RDFSBASE || insn.mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
  const bool reads = insn.mnemonic == ZYDIS_MNEMONIC_RDFSBASE || insn.mnemonic == ZYDIS_MNEMONIC_RDGSBASE;
  Segment& s = cpu.segment(fs ? Seg::fs : Seg::gs);
  if (reads) return store_operand(cpu, insn, insn.op[0], s.base) ? Outcome::next : Outcome::fault;
  u64 base;
  if (!load_operand(cpu, insn, insn.op[0], &base)) return Outcome::fault;
  if (!canonical(base)) return cpu.raise_gp(0);
  s.base = s.linear_base = base;
  return Outcome::next;
}

}  // namespace sem
}  // namespace trapline::cpu
