#include "engine/verify/lockstep.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <numeric>

#include "base/invariant.h"
#include "cpu/code_map.h"
#include "cpu/events.h"
#include "cpu/fpu.h"
#include "engine/interpret/interpreter.h"

namespace trapline::engine::verify {

using cpu::Vcpu;

namespace {

constexpr u64 kThunkArena = 16 * MiB;  // of the reference's vector unit

u64 all_exceptions(const Vcpu::Counters& count) {
  return std::accumulate(std::begin(count.exceptions), std::end(count.exceptions), u64{0});
}

// What has been done in cages is not taken back in the accounts.
void keep_counts(const Vcpu::Counters& from, Vcpu::Counters& to) {
  to.cage_calls = from.cage_calls, to.cage_faults = from.cage_faults;
  to.cage_traps = from.cage_traps, to.cage_kicks = from.cage_kicks;
  to.cage_inside = from.cage_inside, to.cage_beside = from.cage_beside;
  to.cage_promotions = from.cage_promotions, to.cage_demotions = from.cage_demotions;
}

// Stopped between elements of a REP, `there` is some elements further than `here`, and else the same.
bool is_part_of_rep(const Vcpu& here, const Registers& there) {
  const u64 done = here.gpr[isa::rcx] - there.gpr[isa::rcx];
  if (here.gpr[isa::rcx] <= there.gpr[isa::rcx]) return false;
  bool moved = false;
  for (unsigned i = 0; i < 16; i++) {
    if (i == isa::rcx || here.gpr[i] == there.gpr[i]) continue;
    const u64 up = there.gpr[i] - here.gpr[i], by = std::min(up, 0 - up);
    if ((i != isa::rsi && i != isa::rdi) || (by != done && by != 2 * done && by != 4 * done && by != 8 * done))
      return false;
    moved = true;
  }
  return moved;
}

// Of the run loop that is under way: the reference brings its own, and requests of others wait until it is done.
class Aside {
 public:
  Aside(Vcpu& cpu, std::atomic<u32>& calm)
      : cpu_{cpu}, engine_{cpu.engine_state}, attention_{cpu.attention}, calm_{calm} {
    calm_ = 0;
    cpu.attention = &calm_;
  }
  ~Aside() {
    cpu_.engine_state = engine_;
    cpu_.attention = attention_;
    if (const u32 bits = calm_) attention_->fetch_or(bits, std::memory_order_release);
  }
  Aside(const Aside&) = delete;

 private:
  Vcpu& cpu_;
  void* engine_;
  std::atomic<u32>* attention_;
  std::atomic<u32>& calm_;
};

}  // namespace

Lockstep::Lockstep(Vcpu& cpu, std::unique_ptr<Accelerator> inner, OnDifference on_difference)
    : inner_{std::move(inner)},
      on_difference_{on_difference},
      warrants_{cpu},
      arena_{kThunkArena},
      journal_{Journal::shared()} {
  INVARIANT(inner_->go_block_by_block(), "this engine cannot be verified");
  void* engine = cpu.engine_state;
  reference_ = make_reference(cpu, arena_);
  cpu.engine_state = engine;
}

Lockstep::~Lockstep() { journal_->forget_entries(); }

ExitReason Lockstep::run(Vcpu& cpu, u32 key, u64 limit) {
  cpu::x87_park(cpu);
  attention_ = cpu.attention;
  const Aside aside{cpu, calm_};
  for (bool again = false;; again = true) {
    ExitReason left = ExitReason::nothing;
    const Verdict verdict = compare(cpu, key, limit, &left);
    journal_->end();
    switch (verdict) {
      case Verdict::nothing:
        return ExitReason::nothing;
      case Verdict::not_comparable:
        check_reach();
        return ExitReason::one;
      case Verdict::equal:
        compared().stretches++;
        compared().instructions += cpu.retired - before_.retired;
        check_reach();
        if (left == ExitReason::fault)
          return cpu.activity == cpu::Activity::shutdown ? ExitReason::stop : ExitReason::boundary;
        return left;
      case Verdict::differs:
        break;
    }
    // A and D bits that appeared in the middle may be the difference: they are there from the start now.
    if (again || !journal_->tables_marked()) report(cpu);
    take_back(cpu);
  }
}

// The pages beside take time: a block's first executions, and now and then one.
bool Lockstep::look_wide(u64 rip) {
  constexpr u8 kFirst = 32;
  constexpr u64 kEvery = 64;
  u8& seen = seen_[(rip ^ rip >> 16) & (seen_.size() - 1)];
  return seen < kFirst ? ++seen : compared().stretches % kEvery == 0;
}

Lockstep::Verdict Lockstep::compare(Vcpu& cpu, u32 key, u64 limit, ExitReason* left) {
  before_.capture(cpu);
  journal_->begin(*cpu.ram, calm_, look_wide(cpu.rip));
  const u64 epoch = cpu.code->epoch();
  inner_->revoke_writes();
  *left = inner_->run(cpu, key, limit);
  if (*left == ExitReason::nothing) return Verdict::nothing;
  uncounted_ = inner_->uncounted();
  INVARIANT(*left != ExitReason::halt && *left != ExitReason::stop,
            "a stretch from {:#x} has done what cannot be done twice", before_.rip);
  if (*left == ExitReason::fault) {  // to the handler's first instruction
    cpu.debug_hits = 0;
    (void)cpu::deliver_fault(cpu);
  }
  cpu::x87_park(cpu);
  translated_.capture(cpu);
  // Neither device memory, nor overwritten code, of which others were told, nor all of memory.
  const bool comparable = !journal_->touched_device() && cpu.code->epoch() == epoch && !journal_->too_many();
  journal_->turn_over();
  before_.restore(cpu);
  keep_counts(translated_.count, cpu.count);
  calm_ = 0;
  if (!comparable) {
    journal_->undo();
    return Verdict::not_comparable;
  }
  cpu.timer_deadline = ~u64{0};
  const bool same = uncounted_ ? follow(cpu) : interpret(cpu, *left);
  cpu.timer_deadline = before_.timer_deadline;
  return same ? Verdict::equal : Verdict::differs;
}

// As many instructions as the translated code has retired, and its fault. A REP that paused between elements has
// retired nothing: the reference pauses at the same place.
bool Lockstep::interpret(Vcpu& cpu, ExitReason left) {
  const u64 count = translated_.retired - before_.retired;
  extra_ = left == ExitReason::fault;
  exit_ = count ? reference_->run(cpu, count) : Exit::budget_spent;
  if (extra_ && exit_ == Exit::budget_spent) (void)reference_->step(cpu);
  if (agree(cpu)) return true;
  if (left == ExitReason::one) return forgive_flags(cpu) && agree(cpu);
  if (left != ExitReason::boundary || cpu.retired != translated_.retired) return false;
  const isa::Insn insn = at_rip(cpu);
  if (!insn.rep && !insn.repne) return false;
  extra_ = true;
  (void)reference_->step(cpu);
  return agree(cpu);
}

// Step by step until everything is as the stretch has left it. What leaves user code before that has missed it.
bool Lockstep::follow(Vcpu& cpu) {
  constexpr u64 kMost = 20'000'000;
  unsigned most_alike = 0;
  nearest_ = 0;
  exit_ = Exit::budget_spent;
  u8 code[2];
  at_syscall_ = translated_.gpr[isa::rcx] == translated_.rip + 2 && cpu::peek(cpu, Gva{translated_.rip}, code, 2) &&
                code[0] == 0x0f && code[1] == 0x05;
  for (u64 step = 0; step < kMost; step++) {
    if (cpu.rip == translated_.rip) {
      if (arrived(cpu)) return true;
      unsigned alike = 0;
      for (unsigned i = 0; i < 16; i++) alike += cpu.gpr[i] == translated_.gpr[i];
      if (alike >= most_alike) most_alike = alike, nearest_ = step;
      take_part(cpu);
      if (arrived(cpu)) return true;
    }
    if (cpu.cpl != 3) break;
    (void)reference_->step(cpu);
  }
  return false;
}

// Are the two where one must be to be the other? `retired` is the reference's to say.
bool Lockstep::arrived(const Vcpu& cpu) {
  // The host's SYSCALL, which has stopped it, has left there what the guest's is about to.
  if (at_syscall_) translated_.gpr[isa::rcx] = cpu.gpr[isa::rcx], translated_.gpr[isa::r11] = cpu.gpr[isa::r11];
  if (cpu.rip != translated_.rip || cpu.arith != translated_.arith || cpu.cpl != translated_.cpl ||
      !std::equal(cpu.gpr, std::end(cpu.gpr), translated_.gpr))
    return false;
  translated_.retired = cpu.retired;
  // What XSAVE64 has no room for, by which a host's kernel keeps them; and on AMD's CPUs those that it keeps only while
  // an exception is pending (APM Vol. 2, 11.4.4).
  cpu::X87State& x87 = translated_.x87;
  x87.fcs = cpu.x87.fcs, x87.fds = cpu.x87.fds;
  if (cpu.vendor() == isa::Vendor::amd) x87.fip = cpu.x87.fip, x87.fdp = cpu.x87.fdp, x87.fop = cpu.x87.fop;
  return agree(cpu) || (forgive_flags(cpu) && agree(cpu));
}

// The reference does as many elements of a REP, and is there too.
void Lockstep::take_part(Vcpu& cpu) {
  if (!is_part_of_rep(cpu, translated_)) return;
  if (const isa::Insn insn = at_rip(cpu); insn.address_bytes != 8 || !(insn.rep || insn.repne)) return;
  cpu.gpr[isa::rcx] -= translated_.gpr[isa::rcx];
  (void)reference_->step(cpu);
  cpu.gpr[isa::rcx] += translated_.gpr[isa::rcx];
  cpu.rip = translated_.rip;
}

// A SIMD instruction that raises #XM has set its flags in MXCSR; the interpreter, which raises it, does so again.
bool Lockstep::forgive_flags(const Vcpu& cpu) {
  constexpr u32 kFlags = 0x3f, kMasks = 0x1f80;
  const u32 reference = cpu.vec.mxcsr, translated = translated_.vec.mxcsr;
  if (((reference ^ translated) & ~kFlags) || (reference & ~translated) || (reference & kMasks) == kMasks) return false;
  translated_.vec.mxcsr = reference;
  return true;
}

bool Lockstep::agree(const Vcpu& cpu) { return equal(cpu, translated_) && journal_->equal() && !trouble(cpu.count); }

void Lockstep::take_back(Vcpu& cpu) {
  journal_->undo();
  before_.restore(cpu);
}

// What has happened in one of the two alone; null: nothing.
const char* Lockstep::trouble(const Vcpu::Counters& count) const {
  const u64 reference = all_exceptions(count), translated = all_exceptions(translated_.count);
  if (reference > translated) return "interpret raised an exception, the translated code did not";
  if (reference < translated) return "the translated code raised an exception, interpret did not";
  if (!std::equal(count.exceptions, std::end(count.exceptions), translated_.count.exceptions))
    return "the two raised different exceptions";
  if (journal_->touched_device()) return "interpret accessed device memory, the translated code RAM";
  if (exit_ != Exit::budget_spent) return "interpret halted, the translated code went on";
  return nullptr;
}

// -- The report
isa::Insn Lockstep::at_rip(const Vcpu& cpu) {
  isa::Insn insn;
  u8 bytes[15];
  const Gva linear = cpu.linear(isa::Seg::cs, cpu.rip);
  unsigned n = sizeof bytes;
  while (n > 0 && !cpu::peek(cpu, linear, bytes, n)) n--;
  if (isa::decode(bytes, n, cpu.code_size(), cpu.vendor(), insn) != isa::DecodeStatus::ok) insn = isa::Insn{};
  return insn;
}

// The reference once more (of a stay in a cage the last steps of it), instruction by instruction, each with what it changes.
std::string Lockstep::steps(Vcpu& cpu) {
  constexpr u64 kLast = 64;
  std::string text;
  cpu.timer_deadline = ~u64{0};
  u64 left = uncounted_ ? nearest_ : translated_.retired - before_.retired + extra_;
  for (; uncounted_ && left > kLast; left--) (void)reference_->step(cpu);
  interpreted_.capture(cpu);
  for (; left > 0; left--) {
    Registers last;
    last.capture(cpu);
    char name[160] = "(no instruction)";
    if (const isa::Insn insn = at_rip(cpu); insn.length) isa::format(insn, cpu.rip, name, sizeof name);
    reference_->step(cpu);
    interpreted_.capture(cpu);
    std::string changes;
    for (const Difference& d : differences(last, interpreted_, last))
      if (d.name != "rip" && d.name != "instructions retired") changes += fmt::format("  {}={}", d.name, d.reference);
    text += fmt::format("  @{:016x}  {}{}\n", last.rip, name, changes);
  }
  cpu.timer_deadline = before_.timer_deadline;
  return text;
}

void Lockstep::report(Vcpu& cpu) {
  const char* what = uncounted_ ? "interpret did not come to where it stopped" : trouble(cpu.count);
  const std::string why = what ? what : "registers or memory differ";
  take_back(cpu);
  const std::string code = steps(cpu);
  (void)journal_->equal();
  std::string text =
      fmt::format("--verify: {}, after {} instructions in the block at @{:016x}, instruction {} of vcpu {}\n", why,
                  translated_.retired - before_.retired, before_.rip, before_.retired, cpu.index);
  text += fmt::format("  {:<22} {:<20} {:<20} {:<20}\n", "what differs", "before", "interpret", "translated");
  for (const Difference& d : differences(before_, interpreted_, translated_))
    text += fmt::format("  {:<22} {:<20} {:<20} {:<20}\n", d.name, d.before, d.reference, d.translated);
  text += journal_->describe();
  text += "before:\n" + describe(before_) + "interpret:\n" + describe(interpreted_);
  text += "translated:\n" + describe(translated_);
  text += "guest code, as interpret executes it:\n" + code;
  cpu.attention = attention_;
  text += "translated code:\n" + inner_->listing();
  on_difference_(text);
  std::abort();
}

// What the stretch has looked up stays for the next ones.
void Lockstep::check_reach() {
  const std::string wrong = warrants_.check(*inner_);
  if (wrong.empty()) return;
  on_difference_(fmt::format("--verify: {}after the block at @{:016x}, instruction {}\nbefore:\n{}translated code:\n{}",
                             wrong, before_.rip, before_.retired, describe(before_), inner_->listing()));
  std::abort();
}

Compared& compared() {
  static Compared all;
  return all;
}

std::unique_ptr<Accelerator> checked(Vcpu& cpu, std::unique_ptr<Accelerator> inner, OnDifference on_difference) {
  if (!on_difference) return inner;
  return std::make_unique<Lockstep>(cpu, std::move(inner), on_difference);
}

}  // namespace trapline::engine::verify
