#include "engine/interpret/tracer.h"

#include "base/trace.h"

namespace trapline::engine::interpret {

namespace {

constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

}  // namespace

Tracer::Tracer(const Vcpu& cpu, const DecodedBlock& block) : on_{(trace::mask & trace::cpu) != 0}, block_{&block} {
  if (!on_) return;
  rip_ = cpu.rip;
  flags_ = cpu.rflags();
  size_ = cpu.code_size();
  std::memcpy(gpr_, cpu.gpr, sizeof gpr_);
}

void Tracer::print(const Vcpu& cpu) const {
  if (!on_) return;
  isa::Insn insn;
  char text[160] = "(bad)";
  if (isa::decode(block_->code, block_->bytes, size_, cpu.vendor(), insn) == isa::DecodeStatus::ok)
    isa::format(insn, rip_, text, sizeof text);
  std::string line = fmt::format("{:x}: {}", rip_, text);
  for (unsigned i = 0; i < 16; i++)
    if (cpu.gpr[i] != gpr_[i]) line += fmt::format(" {}={:x}", kNames[i], cpu.gpr[i]);
  if (cpu.rflags() != flags_) line += fmt::format(" flags={:x}", cpu.rflags());
  trace::emit(trace::cpu, line);
}

}  // namespace trapline::engine::interpret
