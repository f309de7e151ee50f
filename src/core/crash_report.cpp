#include "core/crash_report.h"

#include <array>
#include <iterator>

#include "core/history.h"
#include "cpu/mmu.h"
#include "isa/insn.h"

namespace trapline::core {

namespace {

using Out = std::back_insert_iterator<std::string>;

const char* name_of(cpu::Mode mode) {
  switch (mode) {
    case cpu::Mode::real:
      return "real mode";
    case cpu::Mode::vm86:
      return "virtual-8086 mode";
    case cpu::Mode::protected16:
      return "16-bit protected mode";
    case cpu::Mode::protected32:
      return "32-bit protected mode";
    case cpu::Mode::compat16:
      return "16-bit compatibility mode";
    case cpu::Mode::compat32:
      return "32-bit compatibility mode";
    case cpu::Mode::long64:
      return "64-bit mode";
  }
  return "?";
}

void registers(const cpu::Vcpu& cpu, Out out) {
  static constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                             "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
  for (int i = 0; i < 16; i++)
    fmt::format_to(out, "{}{} {:016x}{}", i % 4 ? "  " : "  ", kNames[i], cpu.gpr[i], i % 4 == 3 ? "\n" : "");
  fmt::format_to(out, "  cr0 {:x}  cr2 {:x}  cr3 {:x}  cr4 {:x}  efer {:x}  rflags {:x}\n", cpu.cr0, cpu.cr2, cpu.cr3,
                 cpu.cr4, cpu.efer, cpu.rflags());
}

void segment(const char* name, const cpu::Segment& s, Out out) {
  fmt::format_to(out, "  {:4} {:04x}  base {:016x}  limit {:08x}  attributes {:04x}\n", name, s.selector, s.base,
                 s.limit, s.attr);
}

void segments(const cpu::Vcpu& cpu, Out out) {
  static constexpr const char* kNames[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
  for (int i = 0; i < 6; i++) segment(kNames[i], cpu.seg[i], out);
  segment("ldtr", cpu.ldtr, out);
  segment("tr", cpu.tr, out);
  fmt::format_to(out, "  gdtr base {:016x} limit {:04x}   idtr base {:016x} limit {:04x}\n", cpu.gdtr.base,
                 cpu.gdtr.limit, cpu.idtr.base, cpu.idtr.limit);
}

// What retired last, then what stands at rip: it has not been executed, or could not be.
void history(const cpu::Vcpu& cpu, Out out) {
  constexpr std::size_t kExecuted = 16, kAhead = 4;
  fmt::format_to(out, "executed last:\n");
  for (const Executed& e : executed_last(cpu, kExecuted)) fmt::format_to(out, "  @{:016x}  {}\n", e.linear.raw, e.text);
  const auto bytes = code_bytes(cpu, cpu.linear(isa::Seg::cs, cpu.rip), kAhead * 15);
  if (bytes.empty()) fmt::format_to(out, "> @{:016x}  not mapped\n", cpu.linear(isa::Seg::cs, cpu.rip).raw);
  std::size_t at = 0;
  for (std::size_t i = 0; i < kAhead && at < bytes.size(); i++) {
    const u64 linear = cpu.linear(isa::Seg::cs, cpu.rip + at).raw;
    isa::Insn insn;
    if (isa::decode(&bytes[at], bytes.size() - at, cpu.code_size(), cpu.vendor(), insn) != isa::DecodeStatus::ok) {
      if (i == 0) fmt::format_to(out, "> @{:016x}  (no instruction)\n", linear);
      break;
    }
    std::array<char, 128> text{};
    isa::format(insn, cpu.rip + at, text.data(), text.size());
    fmt::format_to(out, "{} @{:016x}  {}\n", i == 0 ? ">" : " ", linear, text.data());
    at += insn.length;
  }
}

void stack(const cpu::Vcpu& cpu, Out out) {
  const unsigned width = cpu.in_long64() ? 8 : cpu.mode == cpu::Mode::real || cpu.mode == cpu::Mode::vm86 ? 2 : 4;
  const auto& ss = cpu.segment(isa::Seg::ss);
  const u64 sp = width == 8 ? cpu.gpr[isa::rsp]
                 : ss.big() ? cpu.gpr[isa::rsp] & 0xffffffff
                            : cpu.gpr[isa::rsp] & 0xffff;
  fmt::format_to(out, "stack:\n");
  for (unsigned i = 0; i < 24; i++) {
    u64 value = 0;
    const Gva linear = cpu.linear(isa::Seg::ss, sp + u64{i} * width);
    if (!cpu::peek(cpu, linear, &value, width)) {
      fmt::format_to(out, "  {:016x}  not mapped\n", linear.raw);
      return;
    }
    fmt::format_to(out, "  {:016x}  @{:0{}x}\n", linear.raw, value, width * 2);
  }
}

}  // namespace

std::string describe(const cpu::Vcpu& cpu) {
  std::string text;
  const Out out{text};
  fmt::format_to(out, "vcpu {} in {}, ring {}, at {:04x}:@{:016x}, {} instructions retired\n", cpu.index,
                 name_of(cpu.mode), cpu.cpl, cpu.segment(isa::Seg::cs).selector, cpu.rip, cpu.retired);
  registers(cpu, out);
  segments(cpu, out);
  history(cpu, out);
  stack(cpu, out);
  return text;
}

std::string crash_report(const cpu::Vcpu& cpu, const char* what) {
  return fmt::format("{}: exception {} with error code {:#x} could not be delivered\n{}", what,
                     static_cast<int>(cpu.fault.vector), cpu.fault.error, describe(cpu));
}

}  // namespace trapline::core
