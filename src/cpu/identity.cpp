// CPUID, RDTSC, RDTSCP, RDPID, RDPMC, RDRAND, RDSEED: what the processor says of itself, of time and of chance.
#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

void set_edx_eax(Vcpu& cpu, u64 value) {
  cpu.gpr[isa::rax] = value & 0xffffffff;
  cpu.gpr[isa::rdx] = value >> 32;
}

Outcome cpuid(Vcpu& cpu) {
  const u32 leaf = static_cast<u32>(cpu.gpr[isa::rax]), subleaf = static_cast<u32>(cpu.gpr[isa::rcx]);
  CpuidRegs r = cpu.cpuid->query(leaf, subleaf, cpu.index, cpu.xcr0, cpu.msr.xss, cpu.cr4);
  if (leaf == 1 && cpu.lapic && !cpu.lapic->enabled()) r.edx &= ~(1u << 9);  // SDM Vol. 3A 10.4.3
  TRACE(msr, "cpuid {:#x}.{:#x} -> {:#010x} {:#010x} {:#010x} {:#010x}", leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  cpu.gpr[isa::rax] = r.eax;
  cpu.gpr[isa::rbx] = r.ebx;
  cpu.gpr[isa::rcx] = r.ecx;
  cpu.gpr[isa::rdx] = r.edx;
  return Outcome::next;
}

Outcome rdtsc(Vcpu& cpu, bool with_aux) {
  if (with_aux && !cpu.cpuid->has(Feature::rdtscp)) return cpu.raise_ud();
  if (cpu.cr4 & cr4::tsd && cpu.cpl > 0) return cpu.raise_gp();
  set_edx_eax(cpu, cpu.tsc());
  if (with_aux) cpu.gpr[isa::rcx] = cpu.msr.tsc_aux & 0xffffffff;
  return Outcome::next;
}

Outcome rdpid(Vcpu& cpu, const isa::Insn& insn) {
  if (!cpu.cpuid->has(Feature::rdpid)) return cpu.raise_ud();
  cpu.gpr[insn.op[0].reg & 15] = cpu.msr.tsc_aux & 0xffffffff;
  return Outcome::next;
}

// RDRAND and RDSEED of the host may come up empty for a while: then so do the guest's (CF = 0, destination 0).
bool host_random(bool seed, u64* value) {
  u8 ok;
  if (seed)
    asm volatile("rdseed %0; setc %1" : "=r"(*value), "=qm"(ok) : : "cc");
  else
    asm volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(ok) : : "cc");
  return ok;
}

// --clock instructions: the number is a function of where in the run it was asked for (splitmix64 over vCPU and
// instant).
u64 reproducible_random(const Vcpu& cpu) {
  u64 z = cpu.vm_tsc() * 0x9e3779b97f4a7c15 + (u64{cpu.index} + 1) * 0xd1342543de82ef95;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

Outcome random(Vcpu& cpu, const isa::Insn& insn, bool seed) {
  if (!cpu.cpuid->has(seed ? Feature::rdseed : Feature::rdrand)) return cpu.raise_ud();
  u64 value = 0;
  bool ok = true;
  if (cpu.clock->instructions)
    value = reproducible_random(cpu);
  else
    ok = host_random(seed, &value);
  if (!store_operand(cpu, insn, insn.op[0], ok ? value : 0)) return Outcome::fault;
  cpu.arith = 0x0200 | (ok ? 0x100 : 0);  // CF tells; OF, SF, ZF, AF and PF are cleared
  return Outcome::next;
}

}  // namespace

Outcome sem::identity(Vcpu& cpu, const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
      return cpuid(cpu);
    case ZYDIS_MNEMONIC_RDTSC:
      return rdtsc(cpu, false);
    case ZYDIS_MNEMONIC_RDTSCP:
      return rdtsc(cpu, true);
    case ZYDIS_MNEMONIC_RDPID:
      return rdpid(cpu, insn);
    case ZYDIS_MNEMONIC_RDPMC:
      return cpu.raise_gp();  // there are no counters, whoever asks
    case ZYDIS_MNEMONIC_RDRAND:
      return random(cpu, insn, false);
    case ZYDIS_MNEMONIC_RDSEED:
      return random(cpu, insn, true);
    default:
      return cpu.raise_ud();
  }
}

}  // namespace trapline::cpu
