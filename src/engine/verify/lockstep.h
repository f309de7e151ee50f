// --verify: an engine's translated code in lockstep with the interpreter. Stands between the interpreter's run loop and
// the engine as its Accelerator, so any engine behind that seam is checked without knowing.
//
// A stretch is what the engine executes in one `run`: at most one block. It runs, what it did is noted and taken back,
// the interpreter executes as many instructions from the same state, and registers and written pages are compared. The
// interpreter's result stays. Both use the same vCPU, so nothing but a stretch is ever done twice: a stretch ends
// before instructions whose effects go beyond registers and RAM, and one that meets device memory is taken back and
// left to the interpreter. Of user code that runs as it is (`uncounted`) nobody knows how many instructions it was: the
// interpreter goes on until its state is the one in which that stopped.
#pragma once

#include <memory>

#include "engine/accelerator.h"
#include "engine/emit/code_arena.h"
#include "engine/engine.h"
#include "engine/verify/journal.h"
#include "engine/verify/registers.h"
#include "engine/verify/warrants.h"

namespace trapline::engine::verify {

// Told of the first difference; does not return.
using OnDifference = void (*)(const std::string& report);
// What has been compared and found equal, by all vCPUs, which take turns.
struct Compared {
  u64 stretches = 0, instructions = 0;
};
Compared& compared();

class Lockstep final : public Accelerator {
 public:
  Lockstep(cpu::Vcpu& cpu, std::unique_ptr<Accelerator> inner, OnDifference on_difference);
  ~Lockstep() override;

  ExitReason run(cpu::Vcpu& cpu, u32 key, u64 limit) override;
  bool translate(cpu::Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) override {
    return inner_->translate(cpu, key, linear, gpa, profile);
  }
  void flush() override { inner_->flush(); }
  u32 threshold() const override { return inner_->threshold(); }
  bool takes(const cpu::Vcpu& cpu) override { return inner_->takes(cpu); }

 private:
  enum class Verdict : u8 { equal, differs, not_comparable, nothing };
  Verdict compare(cpu::Vcpu& cpu, u32 key, u64 limit, ExitReason* left);
  bool interpret(cpu::Vcpu& cpu, ExitReason left);
  bool follow(cpu::Vcpu& cpu);
  bool arrived(const cpu::Vcpu& cpu);
  void take_part(cpu::Vcpu& cpu);
  bool agree(const cpu::Vcpu& cpu);
  bool look_wide(u64 rip);
  bool forgive_flags(const cpu::Vcpu& cpu);
  void take_back(cpu::Vcpu& cpu);
  const char* trouble(const cpu::Vcpu::Counters& count) const;
  static isa::Insn at_rip(const cpu::Vcpu& cpu);
  std::string steps(cpu::Vcpu& cpu);
  [[noreturn]] void report(cpu::Vcpu& cpu);
  void check_reach();

  std::unique_ptr<Accelerator> inner_;
  const OnDifference on_difference_;
  Warrants warrants_;
  CodeArena arena_;
  std::unique_ptr<Engine> reference_;
  std::shared_ptr<Journal> journal_;
  std::atomic<u32> calm_{0};  // in place of cpu.attention meanwhile
  std::atomic<u32>* attention_ = nullptr;
  Registers before_, translated_, interpreted_;
  Exit exit_ = Exit::budget_spent;                   // of the reference
  std::vector<u8> seen_ = std::vector<u8>(1 << 16);  // stretches from here, by a hash of RIP
  bool extra_ = false;                               // it did one step more than instructions have retired
  bool uncounted_ = false;                           // the stretch was; of it:
  bool at_syscall_ = false;                          // it has stopped before one, in its own way
  u64 nearest_ = 0;  // steps of the reference to where it was most like the stretch's end
};

// `inner` as it is, or, with somebody to tell of a difference, in lockstep with the interpreter.
std::unique_ptr<Accelerator> checked(cpu::Vcpu& cpu, std::unique_ptr<Accelerator> inner, OnDifference on_difference);

}  // namespace trapline::engine::verify
