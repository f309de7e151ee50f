// RFLAGS beside the arithmetic ones: PUSHF, POPF, CLI, STI, CLD, STD.
#include "cpu/mmu.h"
#include "engine/hostcode/lower.h"
#include "engine/hostcode/treatment.h"

namespace trapline::engine::hostcode {

// The image of RFLAGS: LAHF and SETO give the arithmetic ones, sys_flags has the others (RF is kept out while no
// breakpoint is armed, VM is never set here).
void Lowering::push_flags(const TranslatedInsn& p) {
  e_.mov(r11, rax);
  e_.lahf_seto();
  e_.movzx_ah(rcx);
  e_.movzx8(rax, rax);
  e_.rorx32(rax, rax, 32 - 11);  // OF
  e_.lea(rcx, at(rcx, rax, 0));
  e_.load32(rax, var(&cpu_.sys_flags));
  e_.lea(rcx, at(rcx, rax, 0));
  e_.store(var(&state_.tmp), rcx);
  e_.mov(rax, r11);
  const u8 size = stack_bytes();
  const Mem top = stack_access(p, true, size);
  e_.load(r11, var(&state_.tmp));
  e_.store_sized(size, top, r11);
  move_rsp(-size);
}

// POPF of an image that leaves TF, IF, IOPL and AC as they are, as nearly all do; the semantic has the others. What is
// not the ring's to change is left alone, so that too many are taken for changes. RF is of no matter (push_flags).
void Lowering::pop_flags(const TranslatedInsn& p) {
  namespace flag = cpu::flag;
  const u8 size = stack_bytes();
  e_.load_sized(size, r11, stack_access(p, false, size));
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
  e_.mov8(rax, r11);
  e_.add7f_sahf();
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

// STAC and CLAC at CPL 0 under SMAP. What follows sees memory with other rights: it is a block of another mode.
void Lowering::set_access(const TranslatedInsn& p) {
  namespace perm = cpu::perm;
  if (!turns(p, context_)) return;
  const bool set = p.insn.mnemonic == ZYDIS_MNEMONIC_STAC;
  islands(112);
  if (!set) {  // AC is 1, or there is no SMAP
    ExitStub& s = called_site(p, ExitStub::Kind::semantic);
    s.ends = true;
    e_.mov_imm(r10, cpu::cr4::smap);
    e_.load32(rcx, var(&cpu_.cr4));
    e_.pext(rcx, rcx, r10);
    e_.mov_imm(r10, cpu::flag::ac);
    e_.load32(r11, var(&cpu_.sys_flags));
    e_.pext(r11, r11, r10);
    e_.lea(rcx, at(rcx, r11, 0, -2));
    const auto both = e_.jrcxz();
    jump_cold(s);
    e_.bind(both);
  }
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.lea(rcx, at(rcx, set ? i32{cpu::flag::ac} : -i32{cpu::flag::ac}), false);
  e_.store32(var(&cpu_.sys_flags), rcx);
  e_.store_imm32(var(&cpu_.need_read), set ? perm::kernel_ac_read : perm::kernel_read, false);
  e_.store_imm32(var(&cpu_.need_write), set ? perm::kernel_ac_write : perm::kernel_write, false);
  islands(120);
  memory_.turn(e_, context_.turned);
  ended_ = true;
  exit_to(next_of(p), block_->key.linear.raw + p.at, 0, static_cast<u16>(index_ + 1), true);
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

}  // namespace trapline::engine::hostcode
