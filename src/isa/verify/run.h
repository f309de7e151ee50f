// Runs one instruction on the host CPU in ring 3 and says what happened.
//
// A child process does it, behind a seccomp filter that lets it do nothing but exit: registers are loaded, the bytes
// run, registers are stored. A signal is caught on an alternate stack and described; the child never returns from it.
// All that the two processes share is one anonymous mapping below 2 GiB, so that 32-bit and 16-bit code reach it, too:
//
//   code  (read, execute)    registers and report    scratch: [rdi]    stack
#pragma once

#include <array>
#include <span>
#include <string>

#include "base/types.h"
#include "isa/insn.h"

namespace trapline::isa::verify {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kStackWords = 8;
inline constexpr u32 kPoison = 0x5a5a5a5a;  // in every register and byte that nothing else is said about

struct Registers {
  std::array<u64, 16> gpr{};  // by isa::Gpr
  u64 flags = 0x202;
};

// Everything that the instruction finds. RDI points to scratch, RSP to `stack`, the rest is poison, unless set.
struct Stage {
  CodeSize size = CodeSize::bits64;
  std::array<u8, 16> code{};
  std::size_t length = 0;
  Registers in;
  std::array<u8, kPage> scratch{};
  std::array<u64, kStackWords> stack{};
  bool cpuid_off = false;  // CPUID faulting on
  bool tsc_off = false;    // RDTSC disabled

  Stage();
  void set_code(std::span<const u8> bytes);
  // Stack slots are as wide as the code's stack operations: 8 bytes, or 4 in 32-bit code.
  void push_slot(unsigned index, u64 value);
};

struct Observation {
  enum class Kind : u8 {
    executed,
    signalled,
    died,     // the child ended without a report, by `signal`
    not_run,  // `reason`
  };
  Kind kind = Kind::not_run;
  int signal = 0, code = 0;  // si_signo, si_code
  u64 trap = 0, error = 0;   // REG_TRAPNO, REG_ERR
  u64 address = 0;           // si_addr; for SIGSYS the number of the system call
  u32 arch = 0;              // for SIGSYS: AUDIT_ARCH_*
  Registers out;
  std::array<u8, kPage> scratch{};
  std::array<u64, kStackWords> stack{};
  std::string reason;
};

// Where scratch and the byte behind the instruction will lie: fixed for the process's life, so a stage may point there.
struct Layout {
  u32 code = 0, data = 0, scratch = 0, stack = 0;
  u32 behind = 0;  // first byte after `length` bytes of code of that size
};
Layout layout(CodeSize size, std::size_t length);

// The code selector of that mode; 0: the host has none (no 32-bit code, modify_ldt refused).
u16 code_selector(CodeSize size);

Observation run(const Stage& stage);

}  // namespace trapline::isa::verify
