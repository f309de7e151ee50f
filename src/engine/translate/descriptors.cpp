#include "engine/translate/descriptors.h"

#include <cstddef>
#include <optional>

#include "engine/hostcode/exit_stub.h"
#include "engine/translate/thunk_parts.h"

namespace trapline::engine::translate {

using namespace hostcode;
using cpu::Seg;

namespace {

// Bits of a descriptor's upper half (SDM Vol. 3A figure 3-8).
constexpr u32 kAccessed = 1 << 8, kReadWrite = 1 << 9, kCode = 1 << 11, kNotSystem = 1 << 12, kPresent = 1 << 15,
              kGranular = 1 << 23;
constexpr unsigned kDplShift = 13;

class Writer {
 public:
  Writer(Emitter& e, cpu::Vcpu& cpu, State& state, u64 tables)
      : e_{e}, cpu_{cpu}, state_{state}, parts_{e, state}, tables_{tables} {}

  void query_lar(u64 call) {
    begin();
    wants(kNotSystem, kNotSystem);
    visible();
    e_.mov32(r10, rax);
    e_.and_imm32(r10, 0xffff00);
    end_with_zero(call);
  }
  void query_lsl(u64 call) {
    begin();
    wants(kNotSystem, kNotSystem);
    visible();
    limit();
    e_.mov32(r10, rbx);
    end_with_zero(call);
  }
  void query_verr(u64 call) {
    begin();
    wants(kNotSystem, kNotSystem);
    readable();
    visible();
    end_with_zero(call);
  }
  void query_verw(u64 call) {
    begin();
    wants(kNotSystem | kCode | kReadWrite, kNotSystem | kReadWrite);
    visible();
    end_with_zero(call);
  }

  void load(Seg seg, u64 call) {
    segment_ = &cpu_.seg[static_cast<u8>(seg)];
    const bool based = seg == Seg::fs || seg == Seg::gs;
    begin();
    wants(kNotSystem | kPresent | kAccessed, kNotSystem | kPresent | kAccessed);
    readable();
    visible();
    limit();
    e_.store32(var(&segment_->limit), rbx);
    e_.store16(var(&segment_->selector), r10);
    e_.mov32(rcx, rax);
    e_.shr(rcx, 8);
    e_.and_imm32(rcx, 0xf0ff);
    e_.store16(var(&segment_->attr), rcx);
    e_.mov32(rbx, rdx);  // the base: bits 15:0 of it
    e_.shr(rbx, 16);
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, 0xff);
    e_.shl(rcx, 16);
    e_.add(rbx, rcx);
    e_.and_imm32(rax, 0xff000000);
    e_.add(rbx, rax);
    e_.store(var(&segment_->base), rbx);
    if (based) e_.store(var(&segment_->linear_base), rbx);
    usable(true);
    end(call);
    e_.bind(*null_);
    e_.store16(var(&segment_->selector), r10);
    e_.mov_imm(rcx, 0);
    e_.store16(var(&segment_->attr), rcx);
    e_.store32(var(&segment_->limit), rcx);
    e_.store(var(&segment_->base), rcx);
    if (based) e_.store(var(&segment_->linear_base), rcx);
    usable(false);
    leave();
  }

 private:
  void slow_if(Condition c) { parts_.slow_if(c); }

  // RAX: the upper half of the descriptor. RDX: all of it.
  void begin() {
    constexpr u32 kLocal = 4;
    parts_.save();
    e_.store(var(&state_.borrowed[0]), rbx);
    e_.mov32(rdx, r10);
    e_.and_imm32(rdx, kLocal);
    slow_if(Condition::not_zero);
    e_.mov32(rdx, r10);
    e_.and_imm32(rdx, 0xfff8);
    if (segment_)
      null_ = e_.jcc(Condition::zero);
    else
      slow_if(Condition::zero);
    e_.lea(rax, at(rdx, 7));
    e_.movzx16(rcx, var(&cpu_.gdtr.limit));
    e_.cmp(rax, rcx);
    slow_if(Condition::above);
    e_.add(rdx, var(&cpu_.gdtr.base));
    parts_.sum_pages(rax, rcx, rdx, at(rdx, 7), true);
    e_.mov_imm64(rcx, tables_);
    e_.load(rax, at(rcx, rax, 3));
    e_.test(rax, rax);
    slow_if(Condition::zero);
    e_.load(rdx, at(rdx, rax, 0));
    e_.mov(rax, rdx);
    e_.shr(rax, 32);
  }

  void wants(u32 mask, u32 value) {
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, mask);
    e_.cmp_imm32(rcx, value);
    slow_if(Condition::not_zero);
  }

  // Data, or code that may be read.
  void readable() {
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, kCode | kReadWrite);
    e_.cmp_imm32(rcx, kCode);
    slow_if(Condition::zero);
  }

  // Neither CPL nor RPL above DPL. Conforming code is asked for no more, but is rare.
  void visible() {
    e_.mov32(rcx, rax);
    e_.shr(rcx, kDplShift);
    e_.and_imm32(rcx, 3);
    e_.movzx8(rbx, var(&cpu_.cpl));
    e_.cmp(rcx, rbx);
    slow_if(Condition::below);
    e_.mov32(rbx, r10);
    e_.and_imm32(rbx, 3);
    e_.cmp(rcx, rbx);
    slow_if(Condition::below);
  }

  // RBX.
  void limit() {
    e_.mov32(rbx, rdx);
    e_.and_imm32(rbx, 0xffff);
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, 0xf0000);
    e_.add(rbx, rcx);
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, kGranular);
    const Emitter::Far bytes = e_.jcc(Condition::zero);
    e_.shl(rbx, 12);
    e_.lea(rbx, at(rbx, 0xfff));
    e_.bind(bytes);
  }

  void usable(bool yes) { e_.store_imm8(var(&segment_->usable), yes); }

  void restore() {
    parts_.restore();
    e_.load(rbx, var(&state_.borrowed[0]));
  }
  void leave() {
    restore();
    e_.jmp_mem(at(r11, offsetof(ExitStub, hit)));
  }
  void end(u64 call) {
    leave();
    parts_.bind_slow();
    restore();
    e_.jmp(call);
  }
  void end_with_zero(u64 call) {
    constexpr u16 kZero = cpu::flag::zf << 8;  // as LAHF leaves it in AX
    e_.or_imm16(var(&state_.saved_flags), kZero);
    end(call);
  }

  Emitter& e_;
  cpu::Vcpu& cpu_;
  State& state_;
  ThunkParts parts_;
  const u64 tables_;
  cpu::Segment* segment_ = nullptr;
  std::optional<Emitter::Far> null_;
};

}  // namespace

void DescriptorThunks::emit(Emitter& out, cpu::Vcpu& cpu, State& state, u64 tables, u64 call) {
  for (u8 use = 0; use < count; use++) {
    at_[use] = out.pc();
    Writer w{out, cpu, state, tables};
    switch (static_cast<Use>(use)) {
      case lar:
        w.query_lar(call);
        break;
      case lsl:
        w.query_lsl(call);
        break;
      case verr:
        w.query_verr(call);
        break;
      case verw:
        w.query_verw(call);
        break;
      case load_es:
        w.load(Seg::es, call);
        break;
      case load_ds:
        w.load(Seg::ds, call);
        break;
      case load_fs:
        w.load(Seg::fs, call);
        break;
      case load_gs:
        w.load(Seg::gs, call);
        break;
      case count:
        break;
    }
  }
}

u64 DescriptorThunks::of(const isa::Insn& insn) const {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
      return at_[lar];
    case ZYDIS_MNEMONIC_LSL:
      return at_[lsl];
    case ZYDIS_MNEMONIC_VERR:
      return at_[verr];
    case ZYDIS_MNEMONIC_VERW:
      return at_[verw];
    case ZYDIS_MNEMONIC_MOV:
      break;
    default:
      return 0;
  }
  if (insn.op[0].kind != isa::Operand::Kind::seg) return 0;
  switch (static_cast<Seg>(insn.op[0].reg)) {
    case Seg::es:
      return at_[load_es];
    case Seg::ds:
      return at_[load_ds];
    case Seg::fs:
      return at_[load_fs];
    case Seg::gs:
      return at_[load_gs];
    default:
      return 0;
  }
}

}  // namespace trapline::engine::translate
