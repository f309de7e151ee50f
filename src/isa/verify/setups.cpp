#include "isa/verify/setups.h"

#include <sys/syscall.h>

#include <cstring>

namespace trapline::isa::verify {

namespace {

constexpr u64 kIopl3 = 0x3000, kOverflow = 0x800;
constexpr u32 kGetpid64 = 39, kGetpid32 = 20;  // harmless, and the filter stops them
constexpr u16 kCpuNumberSelector = 0x7b;       // Linux: its limit is the CPU number
constexpr u16 kUnusedPort = 0x80;

u16 stack_selector() {
  u16 ss;
  asm("mov %%ss, %0" : "=r"(ss));
  return ss;
}

template <class T>
void poke(Stage& stage, std::size_t at, T value) {
  std::memcpy(stage.scratch.data() + at, &value, sizeof value);
}

// Flags that a kernel would set: interrupts off, IOPL 3.
constexpr u64 kWantedFlags = 0x2 | kIopl3;

void far_target_in_memory(Stage& stage, u32 behind) {
  poke(stage, 0, behind);
  poke(stage, stage.size == CodeSize::bits16 ? 2 : 4, code_selector(stage.size));
}

void return_frame(Stage& stage, u32 behind) {
  stage.push_slot(0, behind);
  stage.push_slot(1, code_selector(stage.size));
  stage.push_slot(2, kWantedFlags);
  stage.push_slot(3, layout(stage.size, 0).stack);
  stage.push_slot(4, stack_selector());
}

// RETF's default operand is 32 bits, in 64-bit mode, too.
void far_return_frame(Stage& stage, u32 behind) {
  const u64 cs = code_selector(stage.size);
  if (stage.size == CodeSize::bits16) return stage.push_slot(0, behind), stage.push_slot(1, cs);
  stage.stack[0] = cs << 32 | behind;
}

void clean_xsave_area(Stage& stage) {
  stage.scratch.fill(0);
  poke(stage, 24, u32{0x1f80});  // MXCSR
  stage.in.gpr[rax] = 7, stage.in.gpr[rdx] = 0;
}

void set_operands(Stage& stage, RowId id, u32 behind) {
  auto& gpr = stage.in.gpr;
  switch (id) {
    case RowId::popf:
      return stage.push_slot(0, kWantedFlags);
    case RowId::lar:
    case RowId::verr:
    case RowId::verw:
      gpr[rcx] = id == RowId::verw ? stack_selector() : code_selector(CodeSize::bits64);
      stage.in.flags &= ~u64{0x40};
      return;
    case RowId::lsl:
      gpr[rcx] = kCpuNumberSelector;
      return;
    case RowId::mov_to_ss:
      gpr[rax] = stack_selector();
      return;
    case RowId::mov_to_seg:
      gpr[rax] = 0;
      return;
    case RowId::pop_seg:
      return stage.push_slot(0, 0);
    case RowId::load_far_pointer:
      return poke(stage, 4, u16{0});
    case RowId::call_far:
    case RowId::jmp_far:
      return far_target_in_memory(stage, behind);
    case RowId::ret_far:
      return far_return_frame(stage, behind);
    case RowId::iret:
      return return_frame(stage, behind);
    case RowId::syscall:
      gpr[rax] = kGetpid64;
      return;
    case RowId::int_80:
    case RowId::sysenter:  // which finds its stack in RBP
      gpr[rax] = kGetpid32, gpr[rbp] = gpr[rsp];
      return;
    case RowId::into:
      stage.in.flags |= kOverflow;
      return;
    case RowId::bound:
      poke(stage, 0, u32{10}), poke(stage, 4, u32{20});
      return;
    case RowId::cpuid:
    case RowId::rdpmc:
    case RowId::rdpru:
    case RowId::xgetbv:
      gpr[rax] = kPoison, gpr[rcx] = 0;
      if (id == RowId::cpuid) gpr[rax] = 0;
      return;
    case RowId::umwait:
      gpr[rcx] = 0, gpr[rax] = 0, gpr[rdx] = 0;  // a deadline long past
      return;
    case RowId::monitorx:
      gpr[rax] = gpr[rdi], gpr[rcx] = 0, gpr[rdx] = 0;
      return;
    case RowId::clzero:
      gpr[rax] = gpr[rdi];
      return;
    case RowId::read_pkru:
    case RowId::write_pkru:
      gpr[rcx] = 0, gpr[rax] = 0;
      if (id == RowId::write_pkru) gpr[rdx] = 0;
      return;
    case RowId::xsave:
    case RowId::xrstor:
      return clean_xsave_area(stage);
    case RowId::in:
    case RowId::out:
    case RowId::ins:
    case RowId::outs:
      gpr[rdx] = kUnusedPort, gpr[rsi] = gpr[rdi];
      return;
    default:
      return;
  }
}

// The example's bytes in that mode, if they are the row there.
std::span<const u8> code_in(const Row& row, CodeSize size) {
  if (row.example32.length != 0 && row.example32.size == size) return row.example32.code();
  if (row.example.size == size) return row.example.code();
  if (!(row.modes & static_cast<u8>(size == CodeSize::bits64 ? kMode64 : size == CodeSize::bits32 ? kMode32 : kMode16)))
    return {};
  Insn insn;
  const std::span<const u8> bytes = row.example.code();
  if (decode(bytes.data(), bytes.size(), size, host_vendor(), insn) != DecodeStatus::ok || insn.length != bytes.size())
    return {};
  // DS:DI in 16-bit code is not the scratch page, nor is DS:AX, where CLZERO and MONITORX find it (APM vol. 3: rAX by
  // the address size).
  const bool at_rax = row.id == RowId::clzero || row.id == RowId::monitorx;
  if (size == CodeSize::bits16 && (insn.mem.bytes != 0 || at_rax)) return {};
  const Row* found = classify(insn);
  return found != nullptr && found->id == row.id ? bytes : std::span<const u8>{};
}

}  // namespace

std::optional<Stage> stage_for(const Row& row, CodeSize size) {
  const std::span<const u8> code = code_in(row, size);
  if (code.empty()) return std::nullopt;
  Stage stage;
  stage.size = size;
  stage.set_code(code);
  set_operands(stage, row.id, layout(size, code.size()).behind);
  return stage;
}

std::string_view not_to_be_run(const Row& row, HostFeatures host) {
  switch (row.id) {
    case RowId::tdx:
      return "a hypervisor under the host may stop the whole machine over it";
    case RowId::amx:
      return host.has(Feature::amx) ? "the process has not asked for AMX's state" : "";
    case RowId::shadow_change:
      return host.has(Feature::shadow_stack) ? "it would move the verifier's own shadow stack" : "";
    case RowId::key_locker:
      return host.has(Feature::keylocker) ? "Key Locker's state is unknown" : "";
    case RowId::lightweight_profiling:
      return host.has(Feature::lwp) ? "it would switch profiling on" : "";
    default:
      return {};
  }
}

}  // namespace trapline::isa::verify
