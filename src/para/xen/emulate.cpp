// Privileged instructions that Xen executes for a guest's kernel, which would have been right at CPL 0 and raise #GP at
// CPL 3; and the forced emulation prefix, by which any code asks for CPUID as the hypervisor means it.
#include "base/trace.h"
#include "cpu/descriptor.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"
#include "isa/decode_memo.h"
#include "para/xen/bounce.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"

namespace trapline::para::xen {

namespace {

using cpu::Outcome;

constexpr u8 kForcedPrefix[] = {0x0f, 0x0b, 'x', 'e', 'n'};  // ud2a; .ascii "xen"

namespace msr {
constexpr u32 ucode_rev = 0x8b, spec_ctrl = 0x48, pred_cmd = 0x49, flush_cmd = 0x10b, misc_enable = 0x1a0,
              efer = 0xc0000080, star = 0xc0000081, fmask = 0xc0000084, fs_base = 0xc0000100, gs_base = 0xc0000101,
              kernel_gs_base = 0xc0000102, apic_base = 0x1b, sysenter_cs = 0x174, sysenter_eip = 0x176;
}

// What a guest's CR4 may differ in; the rest is the hypervisor's and reads as it is.
constexpr u64 kGuestCr4 = cpu::cr4::tsd | cpu::cr4::de | cpu::cr4::fsgsbase | cpu::cr4::osxsave;

u64 pair(const cpu::Vcpu& cpu) { return (cpu.gpr[isa::rdx] << 32) | (cpu.gpr[isa::rax] & 0xffffffff); }

void set_pair(cpu::Vcpu& cpu, u64 value) {
  cpu.gpr[isa::rax] = value & 0xffffffff;
  cpu.gpr[isa::rdx] = value >> 32;
}

// Runs the semantic of an instruction that asks for CPL 0, and touches no memory.
Outcome at_cpl0(cpu::Vcpu& cpu, const isa::Insn& insn) {
  const cpu::Semantic semantic = cpu::find_semantic(insn);
  if (!semantic) return cpu.raise_gp();
  cpu.cpl = 0;
  const Outcome outcome = semantic(cpu, insn);
  cpu.cpl = 3;
  cpu::update_mode(cpu);
  return outcome;
}

bool fetch(cpu::Vcpu& cpu, isa::Insn& insn) {
  u8 bytes[15];
  const Gva linear{cpu::cs_of(cpu).linear_base + cpu.rip};
  const u64 to_page_end = kPageSize - linear.page_offset();
  unsigned n = sizeof bytes;
  if (!cpu::peek(cpu, linear, bytes, n)) {
    n = static_cast<unsigned>(std::min<u64>(n, to_page_end));
    if (!cpu::peek(cpu, linear, bytes, n)) return false;
  }
  isa::Raw raw;  // a driver's loop asks for the same few over and over
  return isa::decode_often(bytes, n, cpu.code_size(), cpu.vendor(), insn, raw) == isa::DecodeStatus::ok;
}

}  // namespace

bool Domain::forced_cpuid(cpu::Vcpu& cpu) {
  u8 bytes[sizeof kForcedPrefix + 2];
  if (!cpu::peek(cpu, Gva{cpu::cs_of(cpu).linear_base + cpu.rip}, bytes, sizeof bytes)) return false;
  if (std::memcmp(bytes, kForcedPrefix, sizeof kForcedPrefix) != 0) return false;
  if (bytes[5] != 0x0f || bytes[6] != 0xa2) return false;  // CPUID alone
  // A kernel sees OSXSAVE before it has set it, as under Xen: Linux takes a clear bit to mean that Xen was told to hide
  // XSAVE, and then goes without.
  const u64 cr4 = cpu.cr4 | (state(cpu).kernel ? cpu::cr4::osxsave & cpu.cpuid->cr4_allowed() : 0);
  const cpu::CpuidRegs r = cpu.cpuid->query(static_cast<u32>(cpu.gpr[isa::rax]), static_cast<u32>(cpu.gpr[isa::rcx]),
                                            cpu.index, cpu.xcr0, cpu.msr.xss, cr4);
  cpu.gpr[isa::rax] = r.eax, cpu.gpr[isa::rbx] = r.ebx, cpu.gpr[isa::rcx] = r.ecx, cpu.gpr[isa::rdx] = r.edx;
  cpu.rip += sizeof bytes;
  cpu.retired++;
  return true;
}

bool Domain::emulated_read_control(cpu::Vcpu& cpu, unsigned number, u64* value) {
  VcpuState& v = state(cpu);
  switch (number) {
    case 0:
      *value = (cpu.cr0 & ~cpu::cr0::ts) | (v.fpu_trap ? cpu::cr0::ts : 0);
      return true;
    case 2: {
      const Gpa at = events_.vcpu_info(cpu.index);
      *value = 0;
      if (at.raw != 0) std::memcpy(value, ram_.host(Gpa{at.raw + offsetof(vcpu_info, arch.cr2)}), 8);
      return true;
    }
    case 3:
      *value = xen_pfn_to_cr3(v.kernel_root.raw);
      return true;
    case 4:
      *value = cpu.cr4;
      return true;
    default:
      return false;
  }
}

bool Domain::emulated_write_control(cpu::Vcpu& cpu, unsigned number, u64 value) {
  switch (number) {
    case 0:
      if ((value ^ cpu.cr0) & ~cpu::cr0::ts) return false;
      return fpu_taskswitch(cpu, value & cpu::cr0::ts) == 0;
    case 2:
      if (const Gpa at = events_.vcpu_info(cpu.index); at.raw != 0)
        std::memcpy(ram_.host(Gpa{at.raw + offsetof(vcpu_info, arch.cr2)}), &value, 8);
      return true;
    case 3:
      return new_root_locked(cpu, Mfn{xen_cr3_to_pfn(value)}) == 0;
    case 4: {
      const u64 allowed = kGuestCr4 & (cpu.cpuid ? cpu.cpuid->cr4_allowed() : ~u64{0});
      cpu.cr4 = (cpu.cr4 & ~allowed) | (value & allowed);
      cpu::update_mode(cpu);
      return true;
    }
    default:
      return false;
  }
}

bool Domain::emulated_msr_read(cpu::Vcpu& cpu, u32 index, u64* value) {
  switch (index) {
    case msr::fs_base:
      *value = cpu.segment(cpu::Seg::fs).base;
      return true;
    case msr::gs_base:
      *value = cpu.segment(cpu::Seg::gs).base;
      return true;
    case msr::kernel_gs_base:
      *value = cpu.msr.kernel_gs_base;
      return true;
    case msr::efer:
      *value = cpu.efer;
      return true;
    case msr::apic_base:
      return false;
    default:
      break;
  }
  // The processor's own registers are the hypervisor's; what tells of the processor may be read.
  if ((index >= msr::star && index <= msr::fmask) || (index >= msr::sysenter_cs && index <= msr::sysenter_eip) ||
      index >> 8 == 8)
    return false;
  return cpu::msr_read(cpu, index, value);
}

bool Domain::emulated_msr_write(cpu::Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case msr::fs_base:
      return set_segment_base(cpu, SEGBASE_FS, value) == 0;
    case msr::gs_base:
      return set_segment_base(cpu, SEGBASE_GS_KERNEL, value) == 0;
    case msr::kernel_gs_base:
      return set_segment_base(cpu, SEGBASE_GS_USER, value) == 0;
    case msr::efer:
      return value == cpu.efer;
    case msr::ucode_rev:  // Intel's way to read it begins with a write of 0 (SDM Vol. 3A 10.11.7.1)
      return cpu.cpuid->intel() && value == 0;
    case msr::spec_ctrl:
    case msr::pred_cmd:
    case msr::flush_cmd:
      return cpu::msr_write(cpu, index, value);
    case msr::misc_enable: {  // what is there already
      u64 now = 0;
      return cpu::msr_read(cpu, index, &now) && now == value;
    }
    default:
      return false;
  }
}

// What IOPL means to Xen: a guest's kernel is at 1, or at 0 where it has asked for the architecture's own rule.
bool Domain::iopl_allows(cpu::Vcpu& cpu) {
  const VcpuState& v = state(cpu);
  const u32 level = !v.kernel ? 3 : assists_.load() >> VMASST_TYPE_architectural_iopl & 1 ? 0 : 1;
  return level <= v.iopl;
}

// By IOPL, or by the map that the kernel has given of what programs may use. A part that cannot be read forbids.
bool Domain::port_allowed(cpu::Vcpu& cpu, const isa::Insn& insn) {
  if (iopl_allows(cpu)) return true;
  const bool in = insn.mnemonic == ZYDIS_MNEMONIC_IN;
  const isa::Operand& named = insn.op[in ? 1 : 0];
  const u32 port =
      named.kind == isa::Operand::Kind::imm ? static_cast<u8>(insn.imm) : static_cast<u16>(cpu.gpr[isa::rdx]);
  const u32 bytes = insn.op[in ? 0 : 1].bytes;
  VcpuState& v = state(cpu);
  if (port + bytes > v.io_ports) return false;
  const cpu::Fault fault = cpu.fault;
  const bool kernel = std::exchange(v.kernel, true), nested = std::exchange(v.in_hypercall, true);
  set_roots(cpu, v);
  bool open = true;
  for (u32 p = port; open && p < port + bytes; p++) {
    u8 bits;
    open = get(cpu, v.io_bitmap.wrapping_add(p / 8), bits) && !(bits >> p % 8 & 1);
  }
  v.kernel = kernel, v.in_hypercall = nested;
  set_roots(cpu, v);
  cpu.fault = fault;
  return open;
}

// After #GP. *done: it was one of these, and cpu.rip is behind it; else the fault is the guest's. A program may execute
// what IOPL lets it, nothing else.
Outcome Domain::emulate(cpu::Vcpu& cpu, bool* done) {
  if (cpu.fault.error != 0 || !cpu.in_long64()) return Outcome::fault;
  isa::Insn insn;
  if (!fetch(cpu, insn)) return Outcome::fault;
  using Kind = isa::Operand::Kind;
  const cpu::Fault fault = cpu.fault;
  bool ok = false;
  TRACE(exits, "xen: {} at {:#x} is emulated", ZydisMnemonicGetString(insn.mnemonic), cpu.rip);
  const bool flag = insn.mnemonic == ZYDIS_MNEMONIC_CLI || insn.mnemonic == ZYDIS_MNEMONIC_STI;
  const bool port = insn.mnemonic == ZYDIS_MNEMONIC_IN || insn.mnemonic == ZYDIS_MNEMONIC_OUT;
  if (!(flag ? iopl_allows(cpu) : port ? port_allowed(cpu, insn) : state(cpu).kernel)) return Outcome::fault;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLTS:
      ok = fpu_taskswitch(cpu, false) == 0;
      break;
    case ZYDIS_MNEMONIC_MOV: {
      const bool reads = insn.op[1].kind == Kind::cr || insn.op[1].kind == Kind::dr;
      const bool writes = insn.op[0].kind == Kind::cr || insn.op[0].kind == Kind::dr;
      if (reads && insn.op[1].kind == Kind::cr)
        ok = emulated_read_control(cpu, insn.op[1].reg, &cpu.gpr[insn.op[0].reg & 15]);
      else if (writes && insn.op[0].kind == Kind::cr)
        ok = emulated_write_control(cpu, insn.op[0].reg, cpu.gpr[insn.op[1].reg & 15]);
      else if (reads)
        cpu.gpr[insn.op[0].reg & 15] = static_cast<u64>(call(cpu, __HYPERVISOR_get_debugreg, {insn.op[1].reg})),
                                 ok = true;
      else if (writes)
        ok = set_debugreg(cpu, insn.op[0].reg, cpu.gpr[insn.op[1].reg & 15]) == 0;
      break;
    }
    case ZYDIS_MNEMONIC_RDMSR: {
      u64 value = 0;
      ok = emulated_msr_read(cpu, static_cast<u32>(cpu.gpr[isa::rcx]), &value);
      // Xen keeps a kernel alive that reads one before it has handlers.
      if (!ok && state(cpu).traps[13].address == 0) ok = true;
      if (ok) set_pair(cpu, value);
      TRACE(msr, "xen: rdmsr {:#x} -> {}", static_cast<u32>(cpu.gpr[isa::rcx]), ok);
      break;
    }
    case ZYDIS_MNEMONIC_WRMSR:
      ok = emulated_msr_write(cpu, static_cast<u32>(cpu.gpr[isa::rcx]), pair(cpu));
      TRACE(msr, "xen: wrmsr {:#x} <- {:#x} -> {}", static_cast<u32>(cpu.gpr[isa::rcx]), pair(cpu), ok);
      break;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      ok = true;  // and no more, as under Xen: the POPF that undoes a CLI does not trap, and events would stay masked
      break;
    case ZYDIS_MNEMONIC_HLT: {
      cpu.rip += insn.length;
      cpu.retired++;
      *done = true;
      static_cast<void>(block(cpu));
      return Outcome::jumped;
    }
    case ZYDIS_MNEMONIC_XSETBV: {
      const Outcome outcome = at_cpl0(cpu, insn);
      ok = outcome == Outcome::next;
      break;
    }
    // A domain without devices has no ports: with I/O privilege they read as empty, without they are not there.
    case ZYDIS_MNEMONIC_IN:
      ok = cpu::store_operand(cpu, insn, insn.op[0], ~u64{0});
      break;
    case ZYDIS_MNEMONIC_OUT:
      ok = true;
      break;
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
      ok = true;
      break;
    case ZYDIS_MNEMONIC_INVLPG: {
      const Gva linear{cpu::effective_address(cpu, insn.mem, cpu.rip + insn.length)};
      if (cpu::canonical(linear)) cpu::tlb_flush_page(cpu, linear);
      ok = true;
      break;
    }
    default:
      break;
  }
  if (!ok) {
    cpu.fault = fault;
    return Outcome::fault;
  }
  cpu.rip += insn.length;
  cpu.retired++;
  *done = true;
  return Outcome::jumped;
}

}  // namespace trapline::para::xen
