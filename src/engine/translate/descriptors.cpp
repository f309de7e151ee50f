#include "engine/translate/descriptors.h"

#include <optional>

#include "engine/translate/descriptor_parts.h"

namespace trapline::engine::translate {

using namespace hostcode;
using namespace descriptor;
using cpu::Seg;

namespace {

class Writer {
 public:
  Writer(Emitter& e, cpu::Vcpu& cpu, State& state, u64 tables) : e_{e}, cpu_{cpu}, parts_{e, cpu, state, tables} {}

  void query_lar(u64 call) {
    parts_.begin();
    parts_.demand(kNotSystem, kNotSystem);
    parts_.visible();
    e_.mov32(r10, rax);
    e_.and_imm32(r10, 0xffff00);
    parts_.end_with_zero(call);
  }
  void query_lsl(u64 call) {
    parts_.begin();
    parts_.demand(kNotSystem, kNotSystem);
    parts_.visible();
    parts_.limit();
    e_.mov32(r10, rbx);
    parts_.end_with_zero(call);
  }
  void query_verr(u64 call) {
    parts_.begin();
    parts_.demand(kNotSystem, kNotSystem);
    parts_.readable();
    parts_.visible();
    parts_.end_with_zero(call);
  }
  void query_verw(u64 call) {
    parts_.begin();
    parts_.demand(kNotSystem | kCode | kReadWrite, kNotSystem | kReadWrite);
    parts_.visible();
    parts_.end_with_zero(call);
  }

  void load(Seg seg, u64 call) {
    cpu::Segment* const segment = &cpu_.segment(seg);
    std::optional<Emitter::Far> null;
    const bool based = seg == Seg::fs || seg == Seg::gs;
    parts_.begin(&null);
    parts_.demand(kNotSystem | kPresent | kAccessed, kNotSystem | kPresent | kAccessed);
    parts_.readable();
    parts_.visible();
    parts_.limit();
    e_.store32(var(&segment->limit), rbx);
    e_.store16(var(&segment->selector), r10);
    e_.mov32(rcx, rax);
    e_.shr(rcx, 8);
    e_.and_imm32(rcx, 0xf0ff);
    e_.store16(var(&segment->attr), rcx);
    e_.mov32(rbx, rdx);  // the base: bits 15:0 of it
    e_.shr(rbx, 16);
    e_.mov32(rcx, rax);
    e_.and_imm32(rcx, 0xff);
    e_.shl(rcx, 16);
    e_.add(rbx, rcx);
    e_.and_imm32(rax, 0xff000000);
    e_.add(rbx, rax);
    e_.store(var(&segment->base), rbx);
    if (based) e_.store(var(&segment->linear_base), rbx);
    e_.store_imm8(var(&segment->usable), true);
    parts_.end(call);
    e_.bind(*null);
    e_.store16(var(&segment->selector), r10);
    e_.mov_imm(rcx, 0);
    e_.store16(var(&segment->attr), rcx);
    e_.store32(var(&segment->limit), rcx);
    e_.store(var(&segment->base), rcx);
    if (based) e_.store(var(&segment->linear_base), rcx);
    e_.store_imm8(var(&segment->usable), false);
    parts_.leave();
  }

 private:
  Emitter& e_;
  cpu::Vcpu& cpu_;
  DescriptorParts parts_;
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
