// XCHG with memory (always locked), XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B.
#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

Outcome xchg(Vcpu& cpu, const Insn& insn) {
  const bool first_is_mem = is_mem(insn.op[0]);
  const Operand& reg = insn.op[first_is_mem ? 1 : 0];
  return by_width(reg.bytes, [&](auto zero) {
    using T = decltype(zero);
    u64 mine = 0;
    if (!cpu::load_operand(cpu, insn, reg, &mine)) return Outcome::fault;
    T theirs{};
    const bool ok = modify_memory<T>(cpu, insn.mem.seg, offset_of(cpu, insn), true, [&](T old) {
      theirs = old;
      return static_cast<T>(mine);
    });
    if (!ok || !cpu::store_operand(cpu, insn, reg, theirs)) return Outcome::fault;
    return Outcome::next;
  });
}

template <class T>
Outcome xadd_sized(Vcpu& cpu, const Insn& insn) {
  u64 addend = 0, reg_old = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[1], &addend)) return Outcome::fault;
  u16 f = 0;
  T old{};
  const auto add = [&](T value) {
    old = value;
    return Add::apply<T>(f, value, static_cast<T>(addend));
  };
  if (is_mem(insn.op[0])) {
    if (!modify_memory<T>(cpu, insn.mem.seg, offset_of(cpu, insn), insn.lock, add)) return Outcome::fault;
    (void)cpu::store_operand(cpu, insn, insn.op[1], old);
  } else {
    (void)cpu::load_operand(cpu, insn, insn.op[0], &reg_old);
    const T sum = add(static_cast<T>(reg_old));
    (void)cpu::store_operand(cpu, insn, insn.op[1], old);
    (void)cpu::store_operand(cpu, insn, insn.op[0], sum);  // last: XADD of a register with itself keeps the sum
  }
  cpu.arith = f;
  return Outcome::next;
}
Outcome xadd(Vcpu& cpu, const Insn& insn) {
  return by_width(insn.op[0].bytes, [&](auto zero) { return xadd_sized<decltype(zero)>(cpu, insn); });
}

template <class T>
Outcome cmpxchg_sized(Vcpu& cpu, const Insn& insn) {
  const T expected = low<T>(cpu, isa::rax);
  u64 source = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[1], &source)) return Outcome::fault;
  u16 f = 0;
  T old{};
  const auto swap = [&](T value) {
    old = value;
    (void)Cmp::apply<T>(f, expected, value);
    return value == expected ? static_cast<T>(source) : value;
  };
  if (is_mem(insn.op[0])) {
    if (!modify_memory<T>(cpu, insn.mem.seg, offset_of(cpu, insn), insn.lock, swap)) return Outcome::fault;
  } else {
    u64 value = 0;
    (void)cpu::load_operand(cpu, insn, insn.op[0], &value);
    const T now = swap(static_cast<T>(value));
    // A register that differs is not written at all: its upper half stays.
    if (old == expected) (void)cpu::store_operand(cpu, insn, insn.op[0], now);
  }
  if (old != expected) set_low<T>(cpu, isa::rax, old);
  cpu.arith = f;
  return Outcome::next;
}
Outcome cmpxchg(Vcpu& cpu, const Insn& insn) {
  return by_width(insn.op[0].bytes, [&](auto zero) { return cmpxchg_sized<decltype(zero)>(cpu, insn); });
}

void set_zero_flag(Vcpu& cpu, bool z) { cpu.arith = static_cast<u16>((cpu.arith & ~0x4000) | (z ? 0x4000 : 0)); }

Outcome cmpxchg8b(Vcpu& cpu, const Insn& insn) {
  const u64 expected = u64{low<u32>(cpu, isa::rdx)} << 32 | low<u32>(cpu, isa::rax);
  const u64 wanted = u64{low<u32>(cpu, isa::rcx)} << 32 | low<u32>(cpu, isa::rbx);
  u64 old = 0;
  const auto swap = [&](u64 value) {
    old = value;
    return value == expected ? wanted : value;
  };
  if (!modify_memory<u64>(cpu, insn.mem.seg, offset_of(cpu, insn), insn.lock, swap)) return Outcome::fault;
  set_zero_flag(cpu, old == expected);
  if (old != expected) {
    cpu.gpr[isa::rax] = static_cast<u32>(old);
    cpu.gpr[isa::rdx] = old >> 32;
  }
  return Outcome::next;
}

struct Pair {
  u64 low, high;
};

// Always with the host's LOCK: it costs the guest nothing that it could miss.
bool exchange16(u8* p, Pair& expected, Pair wanted) {
  bool equal;
  asm volatile("lock cmpxchg16b %[cell]"
               : "=@ccz"(equal), [cell] "+m"(*reinterpret_cast<unsigned __int128*>(p)), "+a"(expected.low),
                 "+d"(expected.high)
               : "b"(wanted.low), "c"(wanted.high)
               : "memory");
  return equal;
}

Outcome cmpxchg16b(Vcpu& cpu, const Insn& insn) {
  const Seg seg = insn.mem.seg;
  Gva linear;
  if (!cpu::to_linear(cpu, seg, offset_of(cpu, insn), 16, cpu::Access::rmw, linear)) return Outcome::fault;
  if (linear.raw & 15) return cpu.raise_gp();
  Pair old{cpu.gpr[isa::rax], cpu.gpr[isa::rdx]};
  const Pair expected = old, wanted{cpu.gpr[isa::rbx], cpu.gpr[isa::rcx]};
  bool faulted = false, equal = false;
  if (u8* p = cpu::rmw_slow(cpu, seg, linear, 16, &faulted)) {
    equal = exchange16(p, old, wanted);
  } else {
    if (faulted) return Outcome::fault;
    const cpu::SplitLock lock{cpu};
    for (bool stored = false; !stored;) {
      if (!cpu::read_slow(cpu, seg, linear, &old, 16)) return Outcome::fault;
      equal = old.low == expected.low && old.high == expected.high;
      if (!cpu::replace_slow(cpu, seg, linear, &old, equal ? &wanted : &old, 16, &stored)) return Outcome::fault;
    }
  }
  set_zero_flag(cpu, equal);
  if (!equal) {
    cpu.gpr[isa::rax] = old.low;
    cpu.gpr[isa::rdx] = old.high;
  }
  return Outcome::next;
}

}  // namespace

cpu::Semantic find_complex_exchange(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:
      return is_mem(insn.op[0]) || is_mem(insn.op[1]) ? xchg : nullptr;
    case ZYDIS_MNEMONIC_XADD:
      return xadd;
    case ZYDIS_MNEMONIC_CMPXCHG:
      return cmpxchg;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
      return cmpxchg8b;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      return cmpxchg16b;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
