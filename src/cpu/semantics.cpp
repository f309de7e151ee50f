// Mnemonic -> semantic, for everything in cpu/semantics.h.
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

using Kind = isa::Operand::Kind;

bool is(const isa::Insn& insn, unsigned operand, Kind kind) {
  return operand < insn.operand_count && insn.op[operand].kind == kind;
}

// A pointer operand, or a memory operand that is a selector wider than a near target.
bool far_target(const isa::Insn& insn) {
  if (is(insn, 0, Kind::far_ptr)) return true;
  return is(insn, 0, Kind::mem) && insn.op[0].bytes != insn.operand_bytes;
}

// The opcode byte behind legacy prefixes and REX; RET has no operand that tells far from near.
u8 opcode(const isa::Insn& insn) {
  for (unsigned i = 0; i < insn.length; i++) {
    const u8 b = insn.bytes[i];
    switch (b) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
      case 0x64:
      case 0x65:
      case 0x66:
      case 0x67:
      case 0xf0:
      case 0xf2:
      case 0xf3:
        continue;
      default:
        if (insn.code_size == isa::CodeSize::bits64 && (b & 0xf0) == 0x40) continue;
        return b;
    }
  }
  return 0;
}

Semantic find_mov(const isa::Insn& insn) {
  if (is(insn, 0, Kind::cr) || is(insn, 1, Kind::cr)) return sem::mov_cr;
  if (is(insn, 0, Kind::dr) || is(insn, 1, Kind::dr)) return sem::mov_dr;
  if (is(insn, 0, Kind::seg)) return sem::mov_to_seg;
  return is(insn, 1, Kind::seg) ? sem::mov_from_seg : nullptr;
}

Semantic find_far_ret(const isa::Insn& insn) {
  const u8 op = opcode(insn);
  return op == 0xca || op == 0xcb ? sem::far_ret : nullptr;
}

}  // namespace

Semantic find_semantic(const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      return find_mov(insn);
    case ZYDIS_MNEMONIC_PUSH:
      return is(insn, 0, Kind::seg) ? sem::push_seg : nullptr;
    case ZYDIS_MNEMONIC_POP:
      return is(insn, 0, Kind::seg) ? sem::pop_seg : nullptr;
    case ZYDIS_MNEMONIC_CALL:
      return far_target(insn) ? sem::far_call : nullptr;
    case ZYDIS_MNEMONIC_JMP:
      return far_target(insn) ? sem::far_jmp : nullptr;
    case ZYDIS_MNEMONIC_RET:
      return find_far_ret(insn);

    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      return sem::pushf;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      return sem::popf;
    case ZYDIS_MNEMONIC_CLI:
      return sem::cli;
    case ZYDIS_MNEMONIC_STI:
      return sem::sti;
    case ZYDIS_MNEMONIC_STAC:
      return sem::stac;
    case ZYDIS_MNEMONIC_CLAC:
      return sem::clac;

    case ZYDIS_MNEMONIC_INT:
      return sem::int_n;
    case ZYDIS_MNEMONIC_INT3:
      return sem::int3;
    case ZYDIS_MNEMONIC_INT1:
      return sem::int1;
    case ZYDIS_MNEMONIC_INTO:
      return sem::into;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
      return sem::iret;
    case ZYDIS_MNEMONIC_SYSCALL:
      return sem::syscall;
    case ZYDIS_MNEMONIC_SYSRET:
      return sem::sysret;
    case ZYDIS_MNEMONIC_SYSENTER:
      return sem::sysenter;
    case ZYDIS_MNEMONIC_SYSEXIT:
      return sem::sysexit;
    case ZYDIS_MNEMONIC_BOUND:
      return sem::bound;

    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
      return sem::load_far_pointer;
    case ZYDIS_MNEMONIC_SWAPGS:
      return sem::swapgs;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
      return sem::rdwr_fsgsbase;

    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LMSW:
      return sem::descriptor_table;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL:
      return sem::descriptor_query;

    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_INVPCID:
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_CLDEMOTE:
    case ZYDIS_MNEMONIC_CLZERO:
      return sem::control;

    case ZYDIS_MNEMONIC_RDMSR:
      return sem::rdmsr;
    case ZYDIS_MNEMONIC_WRMSR:
      return sem::wrmsr;
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
      return sem::identity;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
      return sem::hypercall;

    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
      return sem::in_out;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
      return sem::ins_outs;

    // Undefined by name, and by the CPUID policy: virtualization, SMX, SGX, TSX, user interrupts, WAITPKG, LWP,
    // ENQCMD...
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_VMCLEAR:
    case ZYDIS_MNEMONIC_VMLAUNCH:
    case ZYDIS_MNEMONIC_VMRESUME:
    case ZYDIS_MNEMONIC_VMPTRLD:
    case ZYDIS_MNEMONIC_VMPTRST:
    case ZYDIS_MNEMONIC_VMREAD:
    case ZYDIS_MNEMONIC_VMWRITE:
    case ZYDIS_MNEMONIC_VMXOFF:
    case ZYDIS_MNEMONIC_VMXON:
    case ZYDIS_MNEMONIC_VMFUNC:
    case ZYDIS_MNEMONIC_INVEPT:
    case ZYDIS_MNEMONIC_INVVPID:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_CLGI:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_INVLPGA:
    case ZYDIS_MNEMONIC_INVLPGB:
    case ZYDIS_MNEMONIC_TLBSYNC:
    case ZYDIS_MNEMONIC_PSMASH:
    case ZYDIS_MNEMONIC_PVALIDATE:
    case ZYDIS_MNEMONIC_RMPADJUST:
    case ZYDIS_MNEMONIC_RMPUPDATE:
    case ZYDIS_MNEMONIC_GETSEC:
    case ZYDIS_MNEMONIC_ENCLS:
    case ZYDIS_MNEMONIC_ENCLU:
    case ZYDIS_MNEMONIC_ENCLV:
    case ZYDIS_MNEMONIC_SEAMCALL:
    case ZYDIS_MNEMONIC_TDCALL:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_UMONITOR:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_PCONFIG:
    case ZYDIS_MNEMONIC_HRESET:
    case ZYDIS_MNEMONIC_SENDUIPI:
    case ZYDIS_MNEMONIC_UIRET:
    case ZYDIS_MNEMONIC_CLUI:
    case ZYDIS_MNEMONIC_STUI:
    case ZYDIS_MNEMONIC_TESTUI:
    case ZYDIS_MNEMONIC_ENQCMD:
    case ZYDIS_MNEMONIC_ENQCMDS:
    case ZYDIS_MNEMONIC_PTWRITE:
    case ZYDIS_MNEMONIC_XBEGIN:
    case ZYDIS_MNEMONIC_XEND:
    case ZYDIS_MNEMONIC_XABORT:
    case ZYDIS_MNEMONIC_XTEST:
    case ZYDIS_MNEMONIC_XRESLDTRK:
    case ZYDIS_MNEMONIC_XSUSLDTRK:
    case ZYDIS_MNEMONIC_LLWPCB:
    case ZYDIS_MNEMONIC_SLWPCB:
    case ZYDIS_MNEMONIC_LWPINS:
    case ZYDIS_MNEMONIC_LWPVAL:
      return sem::undefined;
    default:
      return nullptr;
  }
}

}  // namespace trapline::cpu
