// monitor COMMAND: what GDB has no words for.
#include <fmt/format.h>

#include <iterator>

#include "monitor/gdb_stub.h"

namespace trapline::monitor::gdb {

using channel::DebugRegisters;

namespace {

constexpr const char* kHelp =
    "registers                       all of the current vCPU, with modes and segments\n"
    "translate ADDRESS               the guest-physical address of a linear one\n"
    "step-interrupts on|off          let interrupts in while stepping (off)\n"
    "description auto|32|64          the registers to describe to GDB from the next connection on (auto: as EFER.LMA "
    "says)\n"
    "help                            this text\n";

const char* mode_name(u8 mode) {
  static constexpr const char* kNames[] = {"real mode",
                                           "virtual-8086 mode",
                                           "16-bit protected mode",
                                           "32-bit protected mode",
                                           "16-bit compatibility mode",
                                           "32-bit compatibility mode",
                                           "64-bit mode"};
  return mode < std::size(kNames) ? kNames[mode] : "unknown mode";
}

const char* activity_name(u8 activity) {
  static constexpr const char* kNames[] = {"running", "halted", "waiting for SIPI", "shut down"};
  return activity < std::size(kNames) ? kNames[activity] : "unknown activity";
}

std::string registers(Target& target, u32 vcpu) {
  DebugRegisters r;
  if (!target.read_registers(vcpu, r)) return "the registers cannot be read\n";
  static constexpr const char* kGpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  static constexpr const char* kSegment[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
  std::string text = fmt::format("{}, {} instructions retired\n", describe_vcpu(r, vcpu), r.retired);
  for (int i = 0; i < 16; i++) text += fmt::format("{:3} {:016x}{}", kGpr[i], r.gpr[i], i % 4 == 3 ? "\n" : "  ");
  text += fmt::format("rip {:016x}  linear {:016x}  rflags {:08x}\n", r.rip, r.pc.raw, r.eflags);
  text += fmt::format("cr0 {:x}  cr2 {:x}  cr3 {:x}  cr4 {:x}  cr8 {:x}  efer {:x}\n", r.cr0, r.cr2, r.cr3, r.cr4,
                      r.cr8, r.efer);
  for (int i = 0; i < 6; i++)
    text += fmt::format("{} {:04x} base {:016x}{}", kSegment[i], r.seg[i].selector, r.seg[i].linear_base,
                        i % 3 == 2 ? "\n" : "  ");
  return text + fmt::format("kernel gs base {:016x}\n", r.msr.kernel_gs_base);
}

std::string translate(std::string_view text, Target& target, u32 vcpu) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  const auto address = take_number(text);
  if (!address || !text.empty()) return "translate ADDRESS: give a hexadecimal number\n";
  const auto gpa = target.translate(vcpu, Gva{*address});
  return gpa ? fmt::format("{:#x} -> {}\n", *address, *gpa) : fmt::format("{:#x} is not mapped\n", *address);
}

std::string step_interrupts(std::string_view text, Settings& settings) {
  if (text != "on" && text != "off") return "step-interrupts: give on or off\n";
  settings.step_interrupts = text == "on";
  return {};
}

std::string description(std::string_view text, Settings& settings) {
  using D = Settings::Description;
  if (text != "auto" && text != "32" && text != "64") return "description: give auto, 32 or 64\n";
  settings.description = text == "auto" ? D::automatic : text == "32" ? D::bits32 : D::bits64;
  return "in force from the next connection on: disconnect, then target remote\n";
}

}  // namespace

std::string describe_vcpu(const DebugRegisters& r, u32 vcpu) {
  return fmt::format("vCPU {}: {}, ring {}, {}", vcpu, mode_name(r.mode), r.cpl,
                     activity_name(static_cast<u8>(r.activity)));
}

std::string run_command(std::string_view text, Target& target, u32 vcpu, Settings& settings) {
  const std::string_view name = text.substr(0, text.find(' '));
  const std::string_view rest = name.size() == text.size() ? std::string_view{} : text.substr(name.size() + 1);
  if (name == "registers") return registers(target, vcpu);
  if (name == "translate") return translate(rest, target, vcpu);
  if (name == "step-interrupts") return step_interrupts(rest, settings);
  if (name == "description") return description(rest, settings);
  if (name == "help") return kHelp;
  return "no such command: see monitor help\n";
}

}  // namespace trapline::monitor::gdb
