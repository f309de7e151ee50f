// What a thunk has looked for in vain is made good once C++ has done its work, so that it finds it the next time.
#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/descriptor.h"
#include "cpu/lapic.h"
#include "engine/hostcode/string_form.h"
#include "engine/translate/translator.h"
#include "engine/vector/op.h"

namespace trapline::engine::translate {

void Translator::called_for_thunk(const ExitStub& stub, const Registers& before, bool went_on) {
  if (stub.kind == ExitStub::Kind::vector) return fill_elements(stub);
  const isa::Insn& insn = stub.called->insn;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
      if (went_on) keep_cpuid(before);
      return;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_MOV:
      return fill_descriptor(static_cast<u16>(before[insn.op[1].reg & 15]));
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
      return fill_descriptor(static_cast<u16>(before[insn.op[0].reg & 15]));
    default:
      return fill_string(stub, before);
  }
}

void Translator::fill_descriptor(u16 selector) {
  Gva linear;
  if (!(selector & 4) && cpu::locate_descriptor(cpu_, selector, 8, linear) && cpu::canonical(linear.raw))
    fill_for_system(linear);
}

void Translator::fill_string(const ExitStub& stub, const Registers& before) {
  StringForm form;
  const bool known = string_form(stub.called->insn, cpu_.in_long64(), &form);
  INVARIANT(known, "a thunk for what is no string instruction at {:#x}", stub.rip);
  if (!StringThunks::takes(form, before[isa::rcx])) return;  // what is longer is no thunk's
  if (form.reads_source()) fill_for_thunk(Gva{before[isa::rsi] & cpu_.linear_mask}, false);
  if (form.has_destination()) fill_for_thunk(Gva{before[isa::rdi] & cpu_.linear_mask}, !form.compares());
}

// What it has answered is kept for the thunk, but where each is to be seen in a trace.
void Translator::keep_cpuid(const Registers& before) {
  if (trace::mask & trace::msr) return;
  const u32 leaf = static_cast<u32>(before[isa::rax]), subleaf = static_cast<u32>(before[isa::rcx]);
  static constexpr u64 kNoApic = 0;
  State& s = region_->state();
  s.apic_base = cpu_.lapic ? &cpu_.lapic->base() : &kNoApic;
  const auto low = [](u64 reg) { return static_cast<u32>(reg); };
  s.cpuid[(leaf + (leaf >> 28)) % State::kCpuidAnswers] = {
      .leaf = leaf,
      .subleaf = subleaf,
      .subleaf_mask = cpu_.cpuid->has_subleaves(leaf) ? ~0u : 0,
      .eax = low(cpu_.gpr[isa::rax]),
      .ebx = low(cpu_.gpr[isa::rbx]),
      .ecx = low(cpu_.gpr[isa::rcx]),
      .edx = low(cpu_.gpr[isa::rdx]),
      .cr4 = cpu_.cr4,
      .xcr0 = cpu_.xcr0,
      .xss = cpu_.msr.xss,
      .apic_base = *s.apic_base,
  };
}

// The indices and the base are as before.
void Translator::fill_elements(const ExitStub& stub) {
  u64 linear[VectorUnit::kMostElements];
  const unsigned count = VectorUnit::element_addresses(cpu_, stub.called->insn, stub.called->vector, linear);
  const bool write = static_cast<vector::Kind>(stub.called->vector.kind) == vector::Kind::scatter;
  for (unsigned i = 0; i < count; i++)
    if (!cpu_.in_long64() || cpu::canonical(linear[i])) fill_for_thunk(Gva{linear[i]}, write);
}

void Translator::fill_for_thunk(Gva linear, bool write) {
  views_->touch(now().view, linear);
  const u32 need = write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, 1, need)) return;
  if (!views_->has(now().view, linear, write)) fill(linear);
}

// The same of a descriptor, which is read with the kernel's rights whatever the ring.
void Translator::fill_for_system(Gva linear) {
  views_->touch(View::kernel, linear);
  if (!cpu::tlb_lookup(cpu_, linear, sizeof(u64), cpu::perm::kernel_read)) return;
  const cpu::TlbEntry& e = cpu_.tlb->half[linear.raw >> 63][linear.raw >> 12 & (cpu::Tlb::kEntries - 1)];
  if (e.addend == 0 || views_->has(View::kernel, linear, false)) return;
  views_->fill(View::kernel, linear, e.gpa, e.addend, e.global, e.page_shift, true, false);
}

}  // namespace trapline::engine::translate
