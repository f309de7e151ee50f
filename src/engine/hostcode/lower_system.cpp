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
  store ? e_.store_sized(size, m, rax) : e_.load_sized(size, rax, m);
}

// MOV of a selector to a register.
void Lowering::move_selector(const TranslatedInsn& p) {
  const u8 guest = p.insn.op[0].reg;
  if (p.insn.op[0].bytes == 2) {
    const u8 half = kHost[guest] == kNone ? u8{r11} : kHost[guest];
    e_.load_sized(2, half, var(&cpu_.seg[p.insn.op[1].reg].selector));
    if (half == r11) e_.store16(gpr(guest), r11);
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
    e_.movzx16(r10, kHost[from]);
  jump_cold(s);
  flush_islands();
  s.hit = e_.pc();
  if (m == ZYDIS_MNEMONIC_LAR || m == ZYDIS_MNEMONIC_LSL) {
    const u8 to = p.insn.op[0].reg;
    const bool narrow = p.insn.op[0].bytes == 2;
    if (kHost[to] == kNone)
      narrow ? e_.store16(gpr(to), r10) : e_.store(gpr(to), r10);
    else
      narrow ? e_.mov16(kHost[to], r10) : e_.mov32(kHost[to], r10);
  }
  s.resume = e_.pc();
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
    e_.lfence();  // it waits for what is before it
  }
  e_.rdtsc();
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
