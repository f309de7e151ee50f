// Which sensitive instructions are done in line, and where a block ends.
#include "engine/hostcode/treatment.h"
#include "isa/traits.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

// Does the instruction table let it run as it is? What the table does not know is innocuous.
bool copied(const isa::Insn& i, bool ring0) {
  const isa::Row* row = isa::classify(i);
  return !row || (ring0 ? row->ring0 : row->ring3).translate == isa::Lowering::copied;
}

bool is_sensitive(const isa::Insn& i, isa::Ring ring) {
  return isa::class_of(isa::classify(i), ring) != isa::Class::innocuous;
}

// Sensitive instructions whose effect is a few moves.
bool is_inlined(const TranslatedInsn& p, const Context& c, const Ready& ready) {
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_PAUSE) return !c.counted;
  const isa::Operand &first = p.insn.op[0], &second = p.insn.op[1];
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_MOV) {  // of a selector
    if (first.kind == Kind::gpr) return second.kind == Kind::seg;
    const bool data =
        first.kind == Kind::seg && (first.reg == u8(Seg::es) || (first.reg >= u8(Seg::ds) && first.reg <= u8(Seg::gs)));
    return c.bits64 && data && second.kind == Kind::gpr;  // elsewhere it may change the mode
  }
  if (!isa::traits(p.insn.mnemonic).has(isa::trait::inlined)) return false;
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      return c.ring0;
    case ZYDIS_MNEMONIC_STAC:  // in the view of the kernel under SMAP AC is 0
      return c.ring0 && c.view == View::kernel && c.turned.tag < JumpCache::kTags;
    case ZYDIS_MNEMONIC_CLAC:
      return c.ring0 && c.turned.tag < JumpCache::kTags;
    case ZYDIS_MNEMONIC_SWAPGS:
      return c.ring0 && c.bits64;
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ:
      return p.insn.operand_bytes == 8;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_POPFD:
      return !c.bits64;
    case ZYDIS_MNEMONIC_CPUID:
      return true;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
      return second.kind == Kind::gpr;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
      return first.kind == Kind::gpr;
    case ZYDIS_MNEMONIC_XGETBV:
      return ready.avx;  // so CR4.OSXSAVE is set
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
      return !c.counted;  // else time is what has retired
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
      return c.bits64 && c.fsgsbase;
    default:
      return false;
  }
}

bool turns(const TranslatedInsn& p, const Context& c) {
  const ZydisMnemonic m = p.insn.mnemonic;
  return m == ZYDIS_MNEMONIC_STAC || (m == ZYDIS_MNEMONIC_CLAC && c.view == View::kernel_ac);
}

// What follows a STAC sees memory with other rights: look-ups of this block are in the view that it was entered with.
bool ends_block(const isa::Insn& i) {
  // A port access changes nothing that a block is made for. What it makes wait (an interrupt, a budget) call_out sees.
  if (i.mnemonic == ZYDIS_MNEMONIC_IN || i.mnemonic == ZYDIS_MNEMONIC_OUT) return false;
  return !isa::block_goes_on(i) ||
         (i.mnemonic != ZYDIS_MNEMONIC_MOV && isa::traits(i.mnemonic).may_change(isa::change::access));
}

}  // namespace trapline::engine::hostcode
