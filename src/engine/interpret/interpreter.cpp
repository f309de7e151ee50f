#include "engine/interpret/interpreter.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/debug_port.h"
#include "cpu/events.h"
#include "cpu/fpu.h"
#include "engine/accelerator.h"
#include "engine/interpret/build.h"
#include "engine/interpret/chain.h"
#include "engine/interpret/tracer.h"

namespace trapline::engine {

namespace interpret {

namespace {

constexpr u64 kCacheBytes = 64 * MiB;
constexpr u64 kLookEvery = 4096;             // instructions between looks at the clock: some 20 us
constexpr u64 kLookEveryTranslated = 20000;  // the same of translated code
constexpr unsigned kMostBarren = 1000;       // times round the run loop without an instruction that retires

u64 saturating_add(u64 a, u64 b) { return a + b < a ? ~u64{0} : a + b; }

}  // namespace

class Interpreter final : public Engine, Profile {
 public:
  Interpreter(Vcpu& vcpu, CodeArena& arena, std::unique_ptr<Accelerator> accelerator, bool exact = false)
      : exact_{exact},
        arena_{arena},
        vector_{arena},
        cache_{kCacheBytes},
        builder_{cache_, vector_},
        accelerator_{std::move(accelerator)} {
    vcpu.engine_state = &run_;
  }
  Exit run(Vcpu& cpu, u64 budget) override;
  Exit step(Vcpu& cpu) override;
  void flush() override;

 private:
  using MaybeExit = std::optional<Exit>;  // empty: go on

  Exit loop(Vcpu& cpu, u64 end);
  bool barren(const Vcpu& cpu);
  MaybeExit at_boundary(Vcpu& cpu, bool* delivered);
  MaybeExit one(Vcpu& cpu);
  MaybeExit after_one(Vcpu& cpu, const DecodedBlock& block, u32 flags_before, u64 retired_before);
  MaybeExit handle(Vcpu& cpu);
  MaybeExit deliver(Vcpu& cpu);
  static MaybeExit stopped(const Vcpu& cpu);
  DecodedBlock* lookup(Vcpu& cpu, u32 key);
  DecodedBlock* usable(Vcpu& cpu, DecodedBlock* block, const Source& source);
  void remember(const Vcpu& cpu, DecodedBlock* block, Gva linear);
  void set_limit(const Vcpu& cpu, u64 end);
  void execute(Vcpu& cpu, DecodedBlock* block);
  bool accelerated(Vcpu& cpu, u64 end, MaybeExit* exit);
  bool hot(Vcpu& cpu, DecodedBlock& block);
  bool often(Gpa place, u32 key) const override;
  static bool one_at_a_time(const Vcpu& cpu);
  static bool at_debugger_breakpoint(const Vcpu& cpu);

  Run run_;
  u64 barren_since_ = 0;      // `retired` when it last moved
  unsigned barren_ = 0;       // times round the loop since
  u64 held_hits_ = 0;         // data breakpoints of a load of SS: they wait until the next instruction ends
  bool after_stack_ = false;  // the last instruction of one() loaded SS
  bool exact_;                // budgets are kept to the instruction whatever the clock
  CodeArena& arena_;
  VectorUnit vector_;
  BlockCache cache_;
  Builder builder_;
  std::unique_ptr<Accelerator> accelerator_;
};

// -- Finding blocks

// The block at
// cpu.rip, decoded now if need be; null: fetching it faults, cpu.fault says how.
DecodedBlock* Interpreter::lookup(Vcpu& cpu, u32 key) {
  const cpu::Segment& cs = cpu.segment(Seg::cs);
  const Gva linear = cpu.linear(Seg::cs, cpu.rip);
  if (!(key & key::flat_code) && cpu.rip > cs.limit) {
    (void)cpu.raise_gp();
    return nullptr;
  }
  if (const JumpEntry& e = run_.jump[jump_slot(linear)];
      e.linear == linear && e.block->key == key && maps(cpu, linear, e.block) && e.block->fresh()) {
    DecodedBlock* block = e.block;
    remember(cpu, block, linear);
    return block;
  }
  for (unsigned attempt = 0;; attempt++) {
    const cpu::TlbEntry* page = cpu::fetch_lookup(cpu, linear);
    if (!page) return nullptr;
    const Gpa gpa = page->gpa.wrapping_add(linear.page_offset());
    const Source source{linear, cpu.rip, gpa, reinterpret_cast<const u8*>(cpu.ram->host(gpa)), key};
    if (DecodedBlock* found = cache_.find(gpa, key)) {
      // A segment limit is no part of the key: near it, go one by one, and decoding anew raises the fault.
      if (!(key & key::flat_code) && cpu.rip + found->bytes - 1 > cs.limit) {
        if (!(key & key::single)) return lookup(cpu, key | key::single);
        cache_.remove(found);
      } else if (DecodedBlock* block = usable(cpu, found, source)) {
        remember(cpu, block, linear);
        return block;
      }
    }
    DecodedBlock* block = nullptr;
    switch (builder_.build(cpu, source, &block)) {
      case Built::yes:
        if (accelerator_) block->heat = key & key::single ? ~0u : accelerator_->threshold() - 1;
        remember(cpu, block, linear);
        return block;
      case Built::fault:
        return nullptr;
      case Built::full:
        INVARIANT(attempt < 2, "a block at {:#x} fits in no cache", linear.raw);
        flush();
        vector_.forget_all();
        arena_.reset();
    }
  }
}

// Is the found block still what memory holds? A write beside it, or of the same bytes, costs only a comparison.
DecodedBlock* Interpreter::usable(Vcpu& cpu, DecodedBlock* block, const Source& source) {
  if (block->crosses) {
    const Gva next_page{(source.linear.page().raw + kPageSize) & cpu.linear_mask};
    const cpu::TlbEntry* second = cpu::fetch_lookup(cpu, next_page);
    if (!second || second->gpa != block->gpa2) {
      cache_.remove(block);  // decoding anew raises the fault or sees the other page
      return nullptr;
    }
  }
  if (block->fresh() || seal(cpu, *block)) return block;
  TRACE(blocks, "stale {} (gpa {})", source.linear, block->gpa);
  cpu.count.blocks_invalidated++;
  cache_.remove(block);
  return nullptr;
}

// Lets the next visit come without the run loop: by the branch that led here, and by address.
void Interpreter::remember(const Vcpu& cpu, DecodedBlock* block, Gva linear) {
  DecodedBlock** link = run_.pending_link;
  run_.pending_link = nullptr;
  if (block->crosses || !(block->key & key::flat_code) || (block->key & key::single)) return;
  run_.jump[jump_slot(linear)] = {linear, block};
  if (!link || run_.pending_rip != cpu.rip || run_.pending_key != block->key) return;
  if (run_.pending_cross || run_.pending_page == block->gpa.page()) *link = block;
}

void Interpreter::flush() {
  cache_.clear();
  run_.forget_jumps();
  run_.pending_link = nullptr;
  if (accelerator_) accelerator_->flush();
}

// -- Running
void Interpreter::execute(Vcpu& cpu, DecodedBlock* block) {
  run_.leave = Leave::boundary;
  run_.pending_link = nullptr;
  cpu.trail.see(cpu.retired, cpu.segment(Seg::cs).linear_base, cpu.code_size());
  cpu.trail.enter(cpu.retired, cpu.rip);
  cpu.retired += block->count;
  for (const Op* op = block->first(); op;) op = op->fn(cpu, op);
}

void Interpreter::set_limit(const Vcpu& cpu, u64 end) {
  run_.deadline = cpu.timer_deadline;
  if (exact_) {
    run_.limit = end;
    return;
  }
  if (!cpu.clock->instructions) {
    run_.limit = std::min(end, saturating_add(cpu.retired, kLookEvery));
    return;
  }
  const u64 now = cpu.vm_tsc();
  const u64 until = cpu.timer_deadline > now ? cpu.timer_deadline - now : 0;
  run_.limit = std::min(end, saturating_add(cpu.retired, until));
}

Interpreter::MaybeExit Interpreter::stopped(const Vcpu& cpu) {
  return cpu.activity == cpu::Activity::shutdown ? Exit::shutdown : Exit::kicked;
}

// Interrupts, timer, requests of other threads. Empty: there are instructions to run.
Interpreter::MaybeExit Interpreter::at_boundary(Vcpu& cpu, bool* delivered) {
  using cpu::Activity;
  const bool due = cpu.timer_deadline != ~u64{0} && cpu.vm_tsc() >= cpu.timer_deadline;
  if (cpu.attention->load(std::memory_order_acquire) == 0 && !due && cpu.activity == Activity::running) [[likely]]
    return {};
  switch (cpu::service_events(cpu)) {
    case Outcome::halt:
      return cpu.activity == Activity::wait_for_sipi ? Exit::waiting : Exit::halted;
    case Outcome::stop:
      return stopped(cpu);
    case Outcome::jumped:
      *delivered = true;
      return {};
    default:
      return {};
  }
}

Interpreter::MaybeExit Interpreter::deliver(Vcpu& cpu) {
  cpu.debug_hits = 0;
  return cpu::deliver_fault(cpu) == Outcome::stop ? stopped(cpu) : MaybeExit{};
}

Interpreter::MaybeExit Interpreter::handle(Vcpu& cpu) {
  switch (run_.leave) {
    case Leave::fault:
      return deliver(cpu);
    case Leave::stop:
      return stopped(cpu);
    case Leave::breakpoint:
      return Exit::breakpoint;
    default:
      return {};  // halted: at_boundary sees it
  }
}

bool Interpreter::one_at_a_time(const Vcpu& cpu) {
  return (cpu.sys_flags & cpu::flag::tf) || cpu.interrupt_shadow || (cpu.debug.dr7 & 0xff) ||
         (trace::mask & trace::cpu) || (cpu.debugger && cpu.debugger->watching());
}

bool Interpreter::at_debugger_breakpoint(const Vcpu& cpu) {
  const Gva linear = cpu.linear(Seg::cs, cpu.rip);
  return cpu.debugger->any() && cpu.debugger->breakpoint_at(linear);
}

// Handlers that fault at once, and a REP of 2^60 elements, spend no budget: others may be waiting for their turn.
bool Interpreter::barren(const Vcpu& cpu) {
  if (cpu.retired == barren_since_) return ++barren_ > kMostBarren;
  barren_since_ = cpu.retired;
  barren_ = 0;
  return false;
}

Exit Interpreter::loop(Vcpu& cpu, u64 end) {
  for (;;) {
    bool delivered = false;
    if (const MaybeExit e = at_boundary(cpu, &delivered)) return *e;
    if (cpu.retired >= end || barren(cpu)) return Exit::budget_spent;
    // Blocks stop at those they come to; what is executed alone has no stops of its own.
    if (cpu.debugger && at_debugger_breakpoint(cpu)) [[unlikely]]
      return Exit::breakpoint;
    if (one_at_a_time(cpu)) [[unlikely]] {
      if (const MaybeExit e = one(cpu)) return *e;
      continue;
    }
    run_.key = mode_key(cpu);
    set_limit(cpu, end);
    if (cpu.cpl == 3 && accelerator_ && accelerator_->takes(cpu)) {
      MaybeExit e;
      if (accelerated(cpu, end, &e)) {
        if (e) return *e;
        continue;
      }
    }
    DecodedBlock* block = lookup(cpu, run_.key);
    if (!block) {
      if (const MaybeExit e = deliver(cpu)) return *e;
      continue;
    }
    if (block->heat == 0 || --block->heat == 0) {
      MaybeExit e;
      if (accelerator_ && accelerated(cpu, end, &e)) {
        if (e) return *e;
        continue;
      }
      if (hot(cpu, *block)) continue;
    }
    if ((exact_ || cpu.clock->instructions) && saturating_add(cpu.retired, block->count) > run_.limit) {
      if (const MaybeExit e = one(cpu)) return *e;
      continue;
    }
    execute(cpu, block);
    if (const MaybeExit e = handle(cpu)) return *e;
  }
}

// -- With a translator
// True: something was executed by it, or by us for it.
bool Interpreter::accelerated(Vcpu& cpu, u64 end, MaybeExit* exit) {
  u64 limit = run_.limit;
  if (!cpu.clock->instructions) limit = std::min(end, saturating_add(cpu.retired, kLookEveryTranslated));
  run_.leave = Leave::boundary;
  switch (accelerator_->run(cpu, run_.key, limit)) {
    case ExitReason::nothing:
      return false;
    case ExitReason::one:
      *exit = one(cpu);
      return true;
    case ExitReason::fault:
      run_.leave = Leave::fault;
      break;
    case ExitReason::halt:
      run_.leave = Leave::halt;
      break;
    case ExitReason::stop:
      run_.leave = Leave::stop;
      break;
    default:
      break;
  }
  *exit = handle(cpu);
  return true;
}

// The block at cpu.rip has been entered often. True: run it translated. What cannot be translated, or not run now,
// counts anew.
bool Interpreter::hot(Vcpu& cpu, DecodedBlock& block) {
  const Gva linear = cpu.linear(Seg::cs, cpu.rip);
  if (accelerator_ && accelerator_->translate(cpu, block.key, linear, block.gpa, *this)) return true;
  block.heat = 1024;
  return false;
}

bool Interpreter::often(Gpa place, u32 key) const {
  const DecodedBlock* const block = cache_.find(place, key);
  return block && block->heat <= accelerator_->threshold() / 2;
}

// -- One instruction, with everything that is looked at between two of them
Interpreter::MaybeExit Interpreter::one(Vcpu& cpu) {
  const u32 before = cpu.sys_flags;
  // Behind a load of SS an instruction breakpoint is passed over (SDM Vol. 3A 6.8.3).
  const bool after_stack = after_stack_ && cpu.interrupt_shadow;
  after_stack_ = false;
  if (!after_stack) held_hits_ = 0;
  if (cpu::resume_flag_matters(cpu) && !(before & cpu::flag::rf) && !after_stack) {
    if (const u64 bits = cpu::instruction_breakpoints(cpu)) {
      cpu.fault = cpu::Fault{cpu::Vector::db, 0, 0, bits};
      return deliver(cpu);
    }
  }
  run_.key = mode_key(cpu) | key::single;
  run_.limit = ~u64{0};
  run_.deadline = cpu.timer_deadline;
  DecodedBlock* block = lookup(cpu, run_.key);
  if (!block) {
    cpu.interrupt_shadow = false;
    return deliver(cpu);
  }
  const u64 retired = cpu.retired;
  cpu.interrupt_shadow = false;  // it covered this instruction only
  cpu.debug_hits = 0;
  Tracer tracer{cpu, *block};
  execute(cpu, block);
  tracer.print(cpu);
  return after_one(cpu, *block, before, retired);
}

Interpreter::MaybeExit Interpreter::after_one(Vcpu& cpu, const DecodedBlock& block, u32 before, u64 retired) {
  if (run_.leave != Leave::boundary && run_.leave != Leave::halt) return handle(cpu);
  const auto mnemonic = static_cast<ZydisMnemonic>(block.mnemonic);
  const bool iret =
      mnemonic == ZYDIS_MNEMONIC_IRET || mnemonic == ZYDIS_MNEMONIC_IRETD || mnemonic == ZYDIS_MNEMONIC_IRETQ;
  if ((before & cpu::flag::rf) && !iret && cpu.retired != retired) cpu.sys_flags &= ~cpu::flag::rf;
  u64 bits = cpu.debug_hits & cpu::dr6::breakpoints;
  const bool stop_for_debugger = cpu.debug_hits & cpu::kDebuggerHit;
  cpu.debug_hits = 0;
  // Single-step: TF as it was before the instruction. Interrupts through a gate cleared it for good; a load of SS holds
  // it off.
  const bool gate = mnemonic == ZYDIS_MNEMONIC_INT || mnemonic == ZYDIS_MNEMONIC_INT3 ||
                    mnemonic == ZYDIS_MNEMONIC_INT1 ||
                    (mnemonic == ZYDIS_MNEMONIC_INTO && !(cpu.sys_flags & cpu::flag::tf)) ||  // without OF it is none
                    (mnemonic == ZYDIS_MNEMONIC_SYSCALL && !(cpu.sys_flags & cpu::flag::tf));
  // Its data breakpoint is held as well, and told with what the next instruction meets (SDM Vol. 3A 6.8.3).
  const bool held = cpu.interrupt_shadow && mnemonic != ZYDIS_MNEMONIC_STI;
  const bool entered = gate || mnemonic == ZYDIS_MNEMONIC_SYSCALL;
  if (cpu.hypervisor && entered) held_hits_ = 0;  // it comes in the hypervisor's own code, which goes on
  // One #DB for both, without its bit in DR6 (measured on Intel's): a second would find the first one's stack in use.
  if (mnemonic == ZYDIS_MNEMONIC_INT1) held_hits_ = 0;
  bits |= std::exchange(held_hits_, 0);
  if (held) held_hits_ = std::exchange(bits, 0);
  after_stack_ = held;
  if ((before & cpu::flag::tf) && !gate && !held) bits |= cpu::dr6::bs;
  const MaybeExit go_on = stop_for_debugger ? MaybeExit{Exit::breakpoint} : MaybeExit{};
  if (bits == 0) return go_on;
  if (cpu.activity == cpu::Activity::halted) cpu.activity = cpu::Activity::running;
  // Between elements of a REP (SDM Vol. 3B 17.3.1.1). AMD's processors leave RF as it is.
  if (cpu.retired == retired && cpu.vendor() == isa::Vendor::intel) cpu.sys_flags |= cpu::flag::rf;
  return cpu::debug_trap(cpu, bits) == Outcome::stop ? stopped(cpu) : go_on;
}

// -- Engine
Exit Interpreter::run(Vcpu& cpu, u64 budget) {
  cpu.engine_state = &run_;
  barren_ = 0;
  const Exit exit = loop(cpu, saturating_add(cpu.retired, budget));
  cpu::x87_park(cpu);
  return exit;
}

Exit Interpreter::step(Vcpu& cpu) {
  cpu.engine_state = &run_;
  bool delivered = false;
  MaybeExit exit = at_boundary(cpu, &delivered);
  if (!exit && !delivered) exit = one(cpu);
  cpu::x87_park(cpu);
  return exit.value_or(Exit::breakpoint);
}

}  // namespace interpret

std::unique_ptr<Engine> make_interpreter(cpu::Vcpu& cpu, CodeArena& arena) {
  return std::make_unique<interpret::Interpreter>(cpu, arena, nullptr);
}

std::unique_ptr<Engine> make_reference(cpu::Vcpu& cpu, CodeArena& arena) {
  return std::make_unique<interpret::Interpreter>(cpu, arena, nullptr, true);
}

std::unique_ptr<Engine> make_accelerated(cpu::Vcpu& cpu, CodeArena& arena, std::unique_ptr<Accelerator> accelerator) {
  return std::make_unique<interpret::Interpreter>(cpu, arena, std::move(accelerator));
}

}  // namespace trapline::engine
