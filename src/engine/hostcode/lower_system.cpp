// Moves to and from full addresses and of selectors, and sensitive instructions whose effect is a few moves.
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

// MOV between the accumulator and a full address (A0 to A3).
void Lowering::move_offset(const TranslatedInsn& p) {
  const bool store = p.insn.op[0].kind == Kind::mem;
  const unsigned size = p.insn.mem.bytes;
  const Mem m = memory_access(p, size, store);
  e_.op(size == 2 ? 0x66 : 0, size == 8, (store ? 0x88 : 0x8A) + (size != 1), rax, m);
}

// MOV of a selector to a register.
void Lowering::move_selector(const TranslatedInsn& p) {
  const u8 guest = p.insn.op[0].reg;
  if (p.insn.op[0].bytes == 2) {
    const u8 half = kHost[guest] == kNone ? u8{r11} : kHost[guest];
    e_.op(0x66, false, 0x8B, half, var(&cpu_.seg[p.insn.op[1].reg].selector));
    if (half == r11) e_.op(0x66, false, 0x89, r11, gpr(guest));
    return;
  }
  const u8 to = kHost[guest] == kNone ? u8{r11} : kHost[guest];
  e_.movzx16(to, var(&cpu_.seg[p.insn.op[1].reg].selector));
  if (to == r11) e_.store(gpr(guest), r11);
}

// LAR, LSL, VERR, VERW, and MOV to ES, DS, FS and GS: by thunk.
void Lowering::read_descriptor(const TranslatedInsn& p) {
  const ZydisMnemonic m = p.insn.mnemonic;
  const u8 from = p.insn.op[m == ZYDIS_MNEMONIC_VERR || m == ZYDIS_MNEMONIC_VERW ? 0 : 1].reg;
  ExitStub& s = called_site(p, ExitStub::Kind::semantic);
  s.by_thunk = memory_.thunk(s, context_.bits64) != 0;
  if (kHost[from] == kNone)
    e_.movzx16(r10, gpr(from));
  else
    e_.op(0, false, 0x0FB7, r10, kHost[from]);  // MOVZX
  jump_cold(s);
  flush_islands();
  s.hit = e_.pc();
  if (m == ZYDIS_MNEMONIC_LAR || m == ZYDIS_MNEMONIC_LSL) {
    const u8 to = p.insn.op[0].reg;
    const bool narrow = p.insn.op[0].bytes == 2;
    if (kHost[to] == kNone)
      narrow ? e_.store16(gpr(to), r10) : e_.store(gpr(to), r10);
    else
      e_.op(narrow ? 0x66 : 0, false, 0x8B, kHost[to], r10);
  }
  s.resume = e_.pc();
}

// The image of RFLAGS: LAHF and SETO give the arithmetic ones, sys_flags has the others (RF is kept out while no
// breakpoint is armed, VM is never set here).
void Lowering::push_flags(const TranslatedInsn& p) {
  e_.mov(r11, rax);
  e_.lahf_seto();
  e_.put(0x0F, 0xB6, 0xCC);      // MOVZX ECX, AH
  e_.put(0x0F, 0xB6, 0xC0);      // MOVZX EAX, AL
  e_.rorx32(rax, rax, 32 - 11);  // OF
  e_.lea(rcx, at(rcx, rax, 0));
  e_.load32(rax, var(&cpu_.sys_flags));
  e_.lea(rcx, at(rcx, rax, 0));
  e_.store(var(&state_.tmp), rcx);
  e_.mov(rax, r11);
  const u8 size = stack_bytes();
  const Mem top = stack_access(p, true, size);
  e_.load(r11, var(&state_.tmp));
  e_.op(0, size == 8, 0x89, r11, top);
  move_rsp(-size);
}

// POPF of an image that leaves TF, IF, IOPL and AC as they are, as nearly all do; the semantic has the others. What is
// not the ring's to change is left alone, so that too many are taken for changes. RF is of no matter (push_flags).
void Lowering::pop_flags(const TranslatedInsn& p) {
  namespace flag = cpu::flag;
  const u8 size = stack_bytes();
  e_.op(0, size == 8, 0x8B, r11, stack_access(p, false, size));
  e_.store(var(&state_.tmp), r11);
  islands(56);
  // Until it is known who goes on the arithmetic flags must stay: by PEXT, NOT and LEA.
  e_.mov_imm(r10, flag::tf | flag::if_ | flag::iopl | flag::ac);
  e_.pext(r11, r11, r10);
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.pext(rcx, rcx, r10);
  e_.complement(rcx);
  e_.lea(rcx, at(rcx, r11, 0, 1));
  ExitStub& s = called_site(p, ExitStub::Kind::semantic);
  s.ends = true;  // it may have changed how memory is seen
  const auto same = e_.jrcxz();
  jump_cold(s);
  e_.bind(same);
  constexpr u32 kOpen = flag::df | flag::nt | flag::id;
  e_.load32(r11, var(&state_.tmp));
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.mov32(r10, r11);
  e_.and_imm32(r10, kOpen);
  e_.and_imm32(rcx, ~kOpen);
  e_.lea(rcx, at(rcx, r10, 0), false);
  e_.store32(var(&cpu_.sys_flags), rcx);
  islands(56);
  e_.mov(rcx, rax);
  e_.rorx32(rax, r11, 32 - 8);  // AH: the low byte
  e_.rorx32(r11, r11, 11);
  e_.and_imm32(r11, 1);  // OF
  e_.op(0, false, 0x8A, rax, r11, true);
  e_.put(0x04, 0x7F, 0x9E);  // ADD AL, 7F: OF; SAHF: the others
  e_.mov(rax, rcx);
  move_rsp(size);
}

// CLD and STD. By a register, and not by RIP: so Intel's processors may hand on what the last one has stored without
// waiting for memory.
void Lowering::set_direction(bool down) {
  constexpr u32 kBit = 10;
  e_.lea(r10, var(&cpu_.sys_flags));
  e_.load32(rcx, at(r10));
  e_.rorx32(rcx, rcx, kBit + 1);  // DF is bit 31
  e_.lea(rcx, at(rcx, rcx, 0), false);
  e_.rorx32(rcx, rcx, 32 - kBit);
  if (down) e_.lea(rcx, at(rcx, 1 << kBit));
  e_.store32(at(r10), rcx);
}

// CLI and STI at CPL 0. The shadow of STI is kept by there being no look at events before the next instruction; with an
// interrupt waiting the semantic does it all.
void Lowering::set_interrupts(const TranslatedInsn& p) {
  const bool set = p.insn.mnemonic == ZYDIS_MNEMONIC_STI;
  ExitStub* s = nullptr;
  if (set) {
    s = &called_site(p, ExitStub::Kind::semantic);
    e_.movzx8(rcx, var(&cpu_.interrupt_waiting));
    const auto none = e_.jrcxz();
    jump_cold(*s);
    e_.bind(none);
  }
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.rorx32(rcx, rcx, 10);  // IF is bit 31
  e_.lea(rcx, at(rcx, rcx, 0), false);
  e_.rorx32(rcx, rcx, 32 - 9);
  if (set) e_.lea(rcx, at(rcx, 0x200));
  e_.store32(var(&cpu_.sys_flags), rcx);
  if (s) s->resume = e_.pc();
}

// Itself; after many, C++ steps aside for a vCPU that may wait for this host CPU.
void Lowering::pause(const TranslatedInsn& p) {
  ExitStub& s = site(ExitStub::Kind::pause, &p);
  e_.load(rcx, var(&state_.pauses));
  e_.lea(rcx, at(rcx, -1));
  e_.store(var(&state_.pauses), rcx);
  jump_cold_if_rcx_0({.site = &s});
  s.resume = e_.pc();
  e_.pause();
}

// The host's counter and what the guest's is ahead of it by. In outer rings CR4.TSD has it fault: C++ looks.
void Lowering::read_tsc(const TranslatedInsn& p) {
  constexpr u8 kTsd = 2;
  islands(112);
  ExitStub* s = nullptr;
  if (!context_.ring0) {
    s = &called_site(p, ExitStub::Kind::semantic);
    e_.load32(rcx, var(&cpu_.cr4));
    e_.rorx32(rcx, rcx, kTsd + 1);  // bit 31; the others go
    e_.mov_imm(r11, 31);
    e_.shrx(rcx, rcx, r11);
    const auto open = e_.jrcxz();
    jump_cold(*s);
    e_.bind(open);
  }
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_RDTSCP) {
    e_.load32(r15, var(&cpu_.msr.tsc_aux));
    e_.put(0x0F, 0xAE, 0xE8);  // LFENCE: it waits for what is before it
  }
  e_.put(0x0F, 0x31);  // RDTSC
  e_.rorx(rdx, rdx, 32);
  e_.lea(rax, at(rax, rdx, 0));
  e_.load(rcx, var(&cpu_.clock));
  for (const std::size_t ahead : {offsetof(cpu::Clock, tsc_offset), offsetof(cpu::Clock, guest_origin)}) {
    e_.load(rdx, at(rcx, static_cast<i32>(ahead)));
    e_.lea(rax, at(rax, rdx, 0));
  }
  e_.load(rdx, var(&cpu_.msr.tsc_adjust));
  e_.lea(rax, at(rax, rdx, 0));
  e_.rorx(rdx, rax, 32);
  e_.mov32(rdx, rdx);
  e_.mov32(rax, rax);
  if (s) s->resume = e_.pc();
}

// RDFSBASE, WRFSBASE and kin, where CR4 lets them be.
void Lowering::segment_base(const TranslatedInsn& p) {
  const ZydisMnemonic m = p.insn.mnemonic;
  const bool fs = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE;
  cpu::Segment& s = cpu_.segment(fs ? Seg::fs : Seg::gs);
  const bool wide = p.insn.op[0].bytes == 8;
  const u8 guest = p.insn.op[0].reg, host = kHost[guest];
  if (m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE) {
    const u8 to = host == kNone ? u8{r11} : host;
    wide ? e_.load(to, var(&s.base)) : e_.load32(to, var(&s.base));
    if (host == kNone) e_.store(gpr(guest), r11);
    return;
  }
  islands(96);
  if (host == kNone)
    wide ? e_.load(r10, gpr(guest)) : e_.load32(r10, gpr(guest));
  else
    wide ? e_.mov(r10, host) : e_.mov32(r10, host);
  ExitStub* refused = nullptr;
  if (wide) {  // canonical: bits 63 to 47 are all equal
    refused = &called_site(p, ExitStub::Kind::semantic);
    e_.mov_imm(r11, 47);
    e_.sarx(rcx, r10, r11);
    e_.lea(rcx, at(rcx, 1));
    e_.mov_imm(r11, 1);
    e_.shrx(rcx, rcx, r11);
    const auto canonical = e_.jrcxz();
    jump_cold(*refused);
    e_.bind(canonical);
  }
  e_.store(var(&s.base), r10);
  e_.store(var(&s.linear_base), r10);
  if (refused) refused->resume = e_.pc();
}

void Lowering::swap_gs() {
  cpu::Segment& gs = cpu_.segment(Seg::gs);
  e_.load(r10, var(&gs.base));
  e_.load(r11, var(&cpu_.msr.kernel_gs_base));
  e_.store(var(&gs.base), r11);
  e_.store(var(&gs.linear_base), r11);
  e_.store(var(&cpu_.msr.kernel_gs_base), r10);
}

// The answer to the same question before, which C++ keeps.
void Lowering::identify(const TranslatedInsn& p) {
  ExitStub& s = called_site(p, ExitStub::Kind::semantic);
  s.by_thunk = true;
  jump_cold(s);
  flush_islands();
  s.resume = e_.pc();
}

// XGETBV of index 0.
void Lowering::read_xcr0(const TranslatedInsn& p) {
  e_.mov32(rcx, kHost[isa::rcx]);
  const auto xcr0 = e_.jrcxz();
  jump_cold(site(ExitStub::Kind::step, &p));
  e_.bind(xcr0);
  e_.load32(rax, var(&cpu_.xcr0));
  e_.load32(rdx, {.absolute = reinterpret_cast<u64>(&cpu_.xcr0) + 4});
}

}  // namespace trapline::engine::hostcode
