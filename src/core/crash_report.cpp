#include "core/crash_report.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

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

// As many bytes of code from `linear` as are mapped, at most `wanted`.
std::vector<u8> code_bytes(const cpu::Vcpu& cpu, u64 linear, std::size_t wanted) {
  std::vector<u8> bytes;
  for (u8 b; bytes.size() < wanted && cpu::peek(cpu, (linear + bytes.size()) & cpu.linear_mask, &b, 1);)
    bytes.push_back(b);
  return bytes;
}

// Where to begin disassembling so that an instruction starts exactly at offset `target`: the longest run that does.
std::size_t synchronise(const std::vector<u8>& bytes, std::size_t target, isa::CodeSize size) {
  for (std::size_t start = 0; start < target; start++) {
    std::size_t at = start;
    isa::Insn insn;
    while (at < target && isa::decode(&bytes[at], bytes.size() - at, size, insn) == isa::DecodeStatus::ok)
      at += insn.length;
    if (at == target) return start;
  }
  return target;
}

void code(const cpu::Vcpu& cpu, Out out) {
  constexpr u64 kBefore = 40, kAfter = 40;
  const u64 base = cpu.seg[static_cast<u8>(isa::Seg::cs)].linear_base;
  u64 first = cpu.rip >= kBefore ? cpu.rip - kBefore : 0;
  auto bytes = code_bytes(cpu, base + first, cpu.rip - first + kAfter);
  if (bytes.size() <= cpu.rip - first) {  // the part before is not mapped
    first = cpu.rip;
    bytes = code_bytes(cpu, base + first, kAfter);
  }
  if (bytes.empty()) {
    fmt::format_to(out, "code: the memory at rip is not mapped\n");
    return;
  }
  const auto size = cpu.code_size();
  fmt::format_to(out, "code before and at rip:\n");
  std::size_t at = synchronise(bytes, cpu.rip - first, size);
  while (at < bytes.size()) {
    isa::Insn insn;
    if (isa::decode(&bytes[at], bytes.size() - at, size, insn) != isa::DecodeStatus::ok) break;
    std::array<char, 128> text{};
    isa::format(insn, first + at, text.data(), text.size());
    fmt::format_to(out, "{} {:016x}  {}\n", first + at == cpu.rip ? ">" : " ", first + at, text.data());
    at += insn.length;
  }
}

void stack(const cpu::Vcpu& cpu, Out out) {
  const unsigned width = cpu.in_long64() ? 8 : cpu.mode == cpu::Mode::real || cpu.mode == cpu::Mode::vm86 ? 2 : 4;
  const auto& ss = cpu.seg[static_cast<u8>(isa::Seg::ss)];
  const u64 sp = width == 8 ? cpu.gpr[isa::rsp]
                 : ss.big() ? cpu.gpr[isa::rsp] & 0xffffffff
                            : cpu.gpr[isa::rsp] & 0xffff;
  fmt::format_to(out, "stack:\n");
  for (unsigned i = 0; i < 24; i++) {
    u64 value = 0;
    const u64 linear = (ss.linear_base + sp + u64{i} * width) & cpu.linear_mask;
    if (!cpu::peek(cpu, linear, &value, width)) {
      fmt::format_to(out, "  {:016x}  not mapped\n", linear);
      return;
    }
    fmt::format_to(out, "  {:016x}  @{:0{}x}\n", linear, value, width * 2);
  }
}

}  // namespace

std::string describe(const cpu::Vcpu& cpu) {
  std::string text;
  const Out out{text};
  fmt::format_to(out, "vcpu {} in {}, ring {}, at {:04x}:@{:016x}, {} instructions retired\n", cpu.index,
                 name_of(cpu.mode), cpu.cpl, cpu.seg[static_cast<u8>(isa::Seg::cs)].selector, cpu.rip, cpu.retired);
  registers(cpu, out);
  segments(cpu, out);
  code(cpu, out);
  stack(cpu, out);
  return text;
}

std::string crash_report(const cpu::Vcpu& cpu, const char* what) {
  return fmt::format("{}: exception {} with error code {:#x} could not be delivered\n{}", what,
                     static_cast<int>(cpu.fault.vector), cpu.fault.error, describe(cpu));
}

}  // namespace trapline::core
