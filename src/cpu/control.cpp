// System control without a register file of its own: CLTS, TLB and cache invalidation, HLT, MONITOR and MWAIT, XCR0.
// Intel SDM Vol. 2: the instructions' pages; Vol. 1 13.3 (XCR0).

#include <utility>

#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"

namespace trapline::cpu::sem {

namespace {

Gva linear_of_memory(const Vcpu& cpu, const isa::Insn& insn) {
  return cpu.linear(insn.mem.seg, effective_address(cpu, insn.mem, cpu.rip + insn.length));
}

bool hidden(const Vcpu& cpu, Feature feature) { return cpu.cpuid && !cpu.cpuid->has(feature); }

Outcome clts(Vcpu& cpu) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  cpu.cr0 &= ~cr0::ts;
  return Outcome::next;
}

Outcome invlpg(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  const Gva linear = linear_of_memory(cpu, insn);
  if (canonical(linear)) tlb_flush_page(cpu, linear);
  return Outcome::next;
}

Outcome invpcid(Vcpu& cpu, const isa::Insn& insn) {
  if (hidden(cpu, Feature::invpcid)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp();
  struct {
    u64 pcid, linear;
  } descriptor;
  if (!read(cpu, insn.mem.seg, effective_address(cpu, insn.mem, cpu.rip + insn.length), descriptor))
    return Outcome::fault;
  const u64 r = cpu.gpr[insn.op[0].reg & 15];
  const u64 type = cpu.in_long64() ? r : r & 0xffffffff;
  if (type > 3 || descriptor.pcid >> 12) return cpu.raise_gp();
  const u16 pcid = static_cast<u16>(descriptor.pcid);
  if (type < 2 && pcid != 0 && !(cpu.cr4 & cr4::pcide)) return cpu.raise_gp();
  if (type == 0 && !canonical(descriptor.linear)) return cpu.raise_gp();
  switch (type) {
    case 0:
      tlb_flush_page(cpu, Gva{descriptor.linear});
      break;
    case 1:
      tlb_flush_pcid(cpu, pcid);
      break;
    case 2:
      tlb_flush_all(cpu);
      break;
    default:
      tlb_flush_all_nonglobal(cpu);
      break;
  }
  return Outcome::next;
}

// The caches are the host's and coherent: nothing to write back.
Outcome cache_flush(Vcpu& cpu) { return cpu.cpl != 0 ? cpu.raise_gp() : Outcome::next; }

// CLFLUSH and its kin fault as a byte read would, except for execute-only segments.
Outcome cache_line(Vcpu& cpu, const isa::Insn& insn) {
  const u64 offset = effective_address(cpu, insn.mem, cpu.rip + insn.length);
  Gva linear;
  if (!to_linear(cpu, insn.mem.seg, offset, 1, Access::read, linear)) return Outcome::fault;
  return probe(cpu, insn.mem.seg, linear, 1, Access::read) ? Outcome::next : Outcome::fault;
}

// Ordinary stores of zeros to the line that rAX, as wide as addresses are, points into (APM Vol. 3 CLZERO).
Outcome clzero(Vcpu& cpu, const isa::Insn& insn) {
  if (!cpu.cpuid || !cpu.cpuid->has(Feature::clzero)) return cpu.raise_ud();
  constexpr unsigned kLine = 64;
  const u64 mask = insn.address_bytes == 8 ? ~u64{0} : insn.address_bytes == 4 ? 0xffffffff : 0xffff;
  const u64 offset = cpu.gpr[isa::rax] & mask & ~u64{kLine - 1};
  static constexpr u8 kZeros[kLine] = {};
  Gva linear;
  if (!to_linear(cpu, insn.mem.seg, offset, kLine, Access::write, linear)) return Outcome::fault;
  return write_slow(cpu, insn.mem.seg, linear, kZeros, kLine) ? Outcome::next : Outcome::fault;
}

u64 after(const Vcpu& cpu, const isa::Insn& insn) {
  const u64 next = cpu.rip + insn.length;
  return cpu.in_long64() ? next : next & (cpu.code_size() == isa::CodeSize::bits32 ? 0xffffffff : 0xffff);
}

Outcome hlt(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  cpu.rip = after(cpu, insn);
  if (std::exchange(cpu.unhalted, false)) {
    cpu.interrupt_shadow = false;
    return Outcome::jumped;
  }
  cpu.activity = Activity::halted;
  cpu.interrupt_shadow = false;  // STI's ends with this instruction: STI; HLT wakes at once
  cpu.count.halts++;
  TRACE(exits, "hlt, if={}", (cpu.sys_flags & flag::if_) != 0);
  return Outcome::halt;
}

// Not offered by CPUID unless the policy changes. MWAIT may wake for any reason (SDM Vol. 2B): here, at once.
Outcome monitor_mwait(Vcpu& cpu, const isa::Insn& insn) {
  if (hidden(cpu, Feature::monitor)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_ud();
  const u32 ecx = static_cast<u32>(cpu.gpr[isa::rcx]);
  if (insn.mnemonic == ZYDIS_MNEMONIC_MWAIT) return ecx & ~1u ? cpu.raise_gp() : Outcome::next;
  if (ecx != 0) return cpu.raise_gp();
  const u64 mask = insn.address_bytes == 8 ? ~u64{0} : insn.address_bytes == 4 ? 0xffffffff : 0xffff;
  u8 byte;
  return read(cpu, insn.mem.seg, cpu.gpr[isa::rax] & mask, byte) ? Outcome::next : Outcome::fault;
}

// A guest that spins waits for another vCPU, which may itself be waiting for this host CPU: after some hundred rounds
// of a loop that does little else, step aside.
void pause(Vcpu& cpu) {
  constexpr u64 kSpinLength = 32;  // instructions of a round, at most
  constexpr u32 kRounds = 256;
  const bool spins = cpu.retired - cpu.last_pause <= kSpinLength;
  cpu.last_pause = cpu.retired;
  cpu.pauses = spins ? cpu.pauses + 1 : 0;
  if (cpu.pauses % kRounds == kRounds - 1 && cpu.code) cpu.code->step_aside(cpu);
}

bool valid_xcr0(const Vcpu& cpu, u64 value) {
  constexpr u64 x87 = 1, sse = 2, avx = 4, avx512 = 0xe0;
  const u64 allowed = cpu.cpuid ? cpu.cpuid->xcr0_allowed() : x87 | sse | avx | avx512;
  if ((value & ~allowed) || !(value & x87)) return false;
  if ((value & avx) && !(value & sse)) return false;
  return (value & avx512) == 0 || ((value & avx512) == avx512 && (value & avx));
}

Outcome xsetbv(Vcpu& cpu) {
  if (!(cpu.cr4 & cr4::osxsave)) return cpu.raise_ud();
  if (cpu.cpl != 0 || static_cast<u32>(cpu.gpr[isa::rcx]) != 0) return cpu.raise_gp();
  const u64 value = (cpu.gpr[isa::rdx] << 32) | (cpu.gpr[isa::rax] & 0xffffffff);
  if (!valid_xcr0(cpu, value)) return cpu.raise_gp();
  cpu.xcr0 = value;
  return Outcome::next;
}

Outcome xgetbv(Vcpu& cpu) {
  if (!(cpu.cr4 & cr4::osxsave)) return cpu.raise_ud();
  const u32 index = static_cast<u32>(cpu.gpr[isa::rcx]);
  // Index 1 tells which components are in use: with no tracking of initial states, all that are enabled.
  const bool in_use = index == 1 && cpu.cpuid && cpu.cpuid->has(Feature::xgetbv1);
  if (index != 0 && !in_use) return cpu.raise_gp();
  cpu.gpr[isa::rax] = cpu.xcr0 & 0xffffffff;
  cpu.gpr[isa::rdx] = cpu.xcr0 >> 32;
  return Outcome::next;
}

}  // namespace

Outcome control(Vcpu& cpu, const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLTS:
      return clts(cpu);
    case ZYDIS_MNEMONIC_INVLPG:
      return invlpg(cpu, insn);
    case ZYDIS_MNEMONIC_INVPCID:
      return invpcid(cpu, insn);
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
      return cache_flush(cpu);  // WBNOINVD is WBINVD with a prefix
    case ZYDIS_MNEMONIC_CLFLUSH:
      return cache_line(cpu, insn);
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
      return hidden(cpu, Feature::clflushopt) ? cpu.raise_ud() : cache_line(cpu, insn);
    case ZYDIS_MNEMONIC_CLWB:
      return hidden(cpu, Feature::clwb) ? cpu.raise_ud() : cache_line(cpu, insn);
    case ZYDIS_MNEMONIC_HLT:
      return hlt(cpu, insn);
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
      return monitor_mwait(cpu, insn);
    case ZYDIS_MNEMONIC_XGETBV:
      return xgetbv(cpu);
    case ZYDIS_MNEMONIC_XSETBV:
      return xsetbv(cpu);
    case ZYDIS_MNEMONIC_PAUSE:
      pause(cpu);
      return Outcome::next;
    case ZYDIS_MNEMONIC_CLDEMOTE:
      return Outcome::next;
    case ZYDIS_MNEMONIC_CLZERO:
      return clzero(cpu, insn);
    // Serializing the host would change nothing here; it is the decoded code that must not be stale, and it never is.
    case ZYDIS_MNEMONIC_SERIALIZE:
      return hidden(cpu, Feature::serialize) ? cpu.raise_ud() : Outcome::next;
    default:
      return cpu.raise_ud();  // RDPKRU, WRPKRU: CR4.PKE cannot be set
  }
}

}  // namespace trapline::cpu::sem
