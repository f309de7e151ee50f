// Near branches with 16-bit operands or in segments with a base or a limit: targets are truncated and checked at the
// branch.
#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

bool condition_holds(unsigned cc, u32 f) {
  switch (cc / 2) {
    case 0:
      return condition<0>(f) != (cc & 1);
    case 1:
      return condition<2>(f) != (cc & 1);
    case 2:
      return condition<4>(f) != (cc & 1);
    case 3:
      return condition<6>(f) != (cc & 1);
    case 4:
      return condition<8>(f) != (cc & 1);
    case 5:
      return condition<10>(f) != (cc & 1);
    case 6:
      return condition<12>(f) != (cc & 1);
    default:
      return condition<14>(f) != (cc & 1);
  }
}

u64 truncate(u64 target, unsigned bytes) {
  return bytes == 2 ? target & 0xffff : bytes == 4 ? target & 0xffffffff : target;
}

// Is `target` a place that RIP may hold? False: #GP(0).
bool check_target(Vcpu& cpu, u64 target) {
  const bool ok = cpu.in_long64() ? static_cast<u64>(static_cast<i64>(target << 16) >> 16) == target
                                  : target <= cpu.segment(Seg::cs).limit;
  if (!ok) (void)cpu.raise_gp();
  return ok;
}

Outcome go(Vcpu& cpu, u64 target) {
  if (!check_target(cpu, target)) return Outcome::fault;
  cpu.rip = target;
  return Outcome::jumped;
}

u64 relative_target(const Vcpu& cpu, const Insn& insn) {
  return truncate(cpu.rip + insn.length + insn.imm, insn.operand_bytes);
}

// The target of a direct or indirect branch. False: fault.
bool branch_target(Vcpu& cpu, const Insn& insn, u64& target) {
  if (insn.op[0].kind == Operand::Kind::imm) {
    target = relative_target(cpu, insn);
    return true;
  }
  if (!cpu::load_operand(cpu, insn, insn.op[0], &target)) return false;
  target = truncate(target, insn.operand_bytes);
  return true;
}

Outcome jcc(Vcpu& cpu, const Insn& insn) {
  const int cc = condition_of(insn.mnemonic);
  return condition_holds(static_cast<unsigned>(cc), cpu.arith) ? go(cpu, relative_target(cpu, insn)) : Outcome::next;
}

Outcome jmp(Vcpu& cpu, const Insn& insn) {
  u64 target = 0;
  return branch_target(cpu, insn, target) ? go(cpu, target) : Outcome::fault;
}

Outcome call(Vcpu& cpu, const Insn& insn) {
  u64 target = 0;
  if (!branch_target(cpu, insn, target)) return Outcome::fault;
  // Intel's processors write the return address before they look at the target, and RSP goes back; AMD's write nothing,
  // but in 64-bit mode a stack that would fault comes first.
  const bool writes = cpu.vendor() == isa::Vendor::intel;
  const u64 rsp = cpu.gpr[isa::rsp];
  if (!writes && cpu.in_long64() && !cpu::probe_push(cpu, insn.operand_bytes)) return Outcome::fault;
  if (!writes && !check_target(cpu, target)) return Outcome::fault;
  if (!cpu::push(cpu, cpu.rip + insn.length, insn.operand_bytes)) return Outcome::fault;
  if (writes && !check_target(cpu, target)) {
    cpu.gpr[isa::rsp] = rsp;
    return Outcome::fault;
  }
  cpu.rip = target;
  return Outcome::jumped;
}

Outcome ret(Vcpu& cpu, const Insn& insn) {
  const u64 rsp = cpu.gpr[isa::rsp];
  u64 target = 0;
  if (!cpu::pop(cpu, &target, insn.operand_bytes)) return Outcome::fault;
  if (!check_target(cpu, target)) {
    cpu.gpr[isa::rsp] = rsp;
    return Outcome::fault;
  }
  u64& sp = cpu.gpr[isa::rsp];
  const u64 released = insn.operand_count ? insn.imm & 0xffff : 0;
  const unsigned width = cpu::stack_bytes(cpu);
  sp = width == 8   ? sp + released
       : width == 4 ? (sp + released) & 0xffffffff
                    : (sp & ~u64{0xffff}) | ((sp + released) & 0xffff);
  cpu.rip = target;
  return Outcome::jumped;
}

// LOOPcc: a fault at the target leaves the counter as it was.
Outcome loop(Vcpu& cpu, const Insn& insn) {
  const u64 old = cpu.gpr[isa::rcx];
  return by_width(insn.address_bytes, [&](auto zero) {
    using T = decltype(zero);
    const T count = static_cast<T>(low<T>(cpu, isa::rcx) - 1);
    set_low<T>(cpu, isa::rcx, count);
    bool taken = count != 0;
    if (insn.mnemonic == ZYDIS_MNEMONIC_LOOPE) taken &= condition<4>(cpu.arith);
    if (insn.mnemonic == ZYDIS_MNEMONIC_LOOPNE) taken &= condition<5>(cpu.arith);
    if (!taken) return Outcome::next;
    const Outcome o = go(cpu, relative_target(cpu, insn));
    if (o == Outcome::fault) cpu.gpr[isa::rcx] = old;
    return o;
  });
}

Outcome jcxz(Vcpu& cpu, const Insn& insn) {
  const u64 count = truncate(cpu.gpr[isa::rcx], insn.address_bytes);
  return count == 0 ? go(cpu, relative_target(cpu, insn)) : Outcome::next;
}

}  // namespace

int condition_of(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_JO:
      return 0;
    case ZYDIS_MNEMONIC_JNO:
      return 1;
    case ZYDIS_MNEMONIC_JB:
      return 2;
    case ZYDIS_MNEMONIC_JNB:
      return 3;
    case ZYDIS_MNEMONIC_JZ:
      return 4;
    case ZYDIS_MNEMONIC_JNZ:
      return 5;
    case ZYDIS_MNEMONIC_JBE:
      return 6;
    case ZYDIS_MNEMONIC_JNBE:
      return 7;
    case ZYDIS_MNEMONIC_JS:
      return 8;
    case ZYDIS_MNEMONIC_JNS:
      return 9;
    case ZYDIS_MNEMONIC_JP:
      return 10;
    case ZYDIS_MNEMONIC_JNP:
      return 11;
    case ZYDIS_MNEMONIC_JL:
      return 12;
    case ZYDIS_MNEMONIC_JNL:
      return 13;
    case ZYDIS_MNEMONIC_JLE:
      return 14;
    case ZYDIS_MNEMONIC_JNLE:
      return 15;
    default:
      return -1;
  }
}

cpu::Semantic find_complex_branch(const Insn& insn) {
  if (condition_of(insn.mnemonic) >= 0) return jcc;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
      return jmp;
    case ZYDIS_MNEMONIC_CALL:
      return call;
    case ZYDIS_MNEMONIC_RET:
      return ret;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      return loop;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
      return jcxz;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
