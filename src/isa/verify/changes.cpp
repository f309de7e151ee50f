#include "isa/verify/changes.h"

#include <fmt/format.h>
#include <linux/audit.h>
#include <signal.h>

#include <cstring>

#include "isa/table.h"
#include "isa/verify/verify.h"

namespace trapline::isa::verify {

namespace {

constexpr u64 kArithmetic = 0x8d5;  // OF, SF, ZF, AF, PF, CF
constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* kTrapNames[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF",
                                      "",    "#TS", "#NP", "#SS", "#GP", "#PF", "",    "#MF", "#AC"};

// Transfers load R8 to R15 with nothing in 32-bit code; the processor leaves their values undefined.
unsigned registers_of(CodeSize size) { return size == CodeSize::bits64 ? 16 : 8; }

u64 width_mask(CodeSize size) { return size == CodeSize::bits64 ? ~u64{0} : 0xffffffff; }

bool register_changed(const Stage& stage, const Observation& seen, unsigned reg) {
  return reg != rsp && ((stage.in.gpr[reg] ^ seen.out.gpr[reg]) & width_mask(stage.size)) != 0;
}

u64 pushed_bytes(const Stage& stage, const Observation& seen) {
  const u64 down = (stage.in.gpr[rsp] - seen.out.gpr[rsp]) & width_mask(stage.size);
  return down <= sizeof seen.stack ? down : 0;
}

std::string bytes_changed(const Stage& stage, const Observation& seen) {
  std::size_t first = 0, last = kPage;
  while (first < kPage && stage.scratch[first] == seen.scratch[first]) first++;
  if (first == kPage) return {};
  while (last > first && stage.scratch[last - 1] == seen.scratch[last - 1]) last--;
  std::string s = first == 0 ? "[rdi] =" : fmt::format("[rdi+{}] =", first);
  for (std::size_t i = first; i < last && i < first + 10; i++) s += fmt::format(" {:02x}", seen.scratch[i]);
  if (last > first + 10) s += " ...";
  return s;
}

std::string signal_text(const Observation& seen) {
  const char* name = ::sigabbrev_np(seen.signal);
  const std::string signal = fmt::format("SIG{}", name ? name : "?");
  if (seen.signal == SIGSYS)
    return fmt::format("{}: {} system call {}", signal, seen.arch == AUDIT_ARCH_I386 ? "32-bit" : "64-bit",
                       seen.address);
  const char* trap = seen.trap < std::size(kTrapNames) ? kTrapNames[seen.trap] : "";
  return fmt::format("{} (si_code {}), {} trap {}, error {:#x}", signal, seen.code, trap, seen.trap, seen.error);
}

std::string executed_text(const Row& row, const Stage& stage, const Observation& seen) {
  const u64 interrupt_flag = seen.out.flags >> 9 & 1, iopl = seen.out.flags >> 12 & 3;
  if (row.id == RowId::popf || row.id == RowId::iret)
    return fmt::format("asked for IF 0, IOPL 3; flags afterwards {:#x}: IF {}, IOPL {}, and no trap", seen.out.flags,
                       interrupt_flag, iopl);
  if (row.id == RowId::pushf) {
    const u64 image = seen.stack[0] & (stage.size == CodeSize::bits16 ? 0xffff : 0xffffffff);
    return fmt::format("pushed {:#x}: IF {}, IOPL {}", image, image >> 9 & 1, image >> 12 & 3);
  }
  const std::string what = changes(stage, seen);
  return what.empty() ? "executed, nothing changed" : what;
}

}  // namespace

bool changed(const Stage& stage, const Observation& seen) {
  for (unsigned reg = 0; reg < registers_of(stage.size); reg++)
    if (register_changed(stage, seen, reg)) return true;
  if ((stage.in.flags ^ seen.out.flags) & kArithmetic) return true;
  return stage.scratch != seen.scratch || pushed_bytes(stage, seen) != 0;
}

std::string changes(const Stage& stage, const Observation& seen) {
  std::string out;
  const auto add = [&](const std::string& s) { out += (out.empty() ? "" : "; ") + s; };
  for (unsigned reg = 0; reg < registers_of(stage.size); reg++)
    if (register_changed(stage, seen, reg))
      add(fmt::format("{} {:x} -> {:x}", kNames[reg], stage.in.gpr[reg], seen.out.gpr[reg] & width_mask(stage.size)));
  if ((stage.in.flags ^ seen.out.flags) & kArithmetic)
    add(fmt::format("flags {:#x} -> {:#x}", stage.in.flags, seen.out.flags));
  if (const u64 bytes = pushed_bytes(stage, seen)) {
    u64 value = seen.stack[0];
    if (bytes < 8) value &= (u64{1} << bytes * 8) - 1;
    add(fmt::format("pushed {:#x}", value));
  }
  if (const std::string bytes = bytes_changed(stage, seen); !bytes.empty()) add(bytes);
  return out;
}

std::string listing(const Stage& stage) {
  // Not isa::decode: it leaves some extensions off, and their bytes are NOPs there.
  const ZydisMachineMode mode = stage.size == CodeSize::bits64   ? ZYDIS_MACHINE_MODE_LONG_64
                                : stage.size == CodeSize::bits32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                                 : ZYDIS_MACHINE_MODE_LEGACY_16;
  ZydisDisassembledInstruction out;
  return ZYAN_SUCCESS(ZydisDisassembleIntel(mode, 0, stage.code.data(), stage.length, &out)) ? out.text : "";
}

std::string describe(const Row& row, const Stage& stage, const Observation& seen) {
  switch (seen.kind) {
    case Observation::Kind::executed:
      return executed_text(row, stage, seen);
    case Observation::Kind::signalled:
      return signal_text(seen);
    case Observation::Kind::died:
      return fmt::format("the child died of signal {} without a report", seen.signal);
    case Observation::Kind::not_run:
      break;
  }
  return seen.reason;
}

std::string_view name(CodeSize size) {
  return size == CodeSize::bits64 ? "64-bit" : size == CodeSize::bits32 ? "32-bit" : "16-bit";
}

}  // namespace trapline::isa::verify
