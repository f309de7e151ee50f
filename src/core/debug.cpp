#include "core/debug.h"

#include <algorithm>
#include <cstring>

#include "channel/futex.h"
#include "core/debug_registers.h"
#include "core/finish.h"
#include "core/vm.h"
#include "cpu/mmu.h"

namespace trapline::core {

using engine::Exit;

namespace {

u64 bit_of(const VcpuUnit& unit) { return u64{1} << unit.cpu.index; }
u64 all_bits(std::size_t vcpus) { return vcpus >= 64 ? ~u64{0} : (u64{1} << vcpus) - 1; }

bool overlap(Gva a, u64 a_bytes, Gva b, u64 b_bytes) { return a - b < b_bytes || b - a < a_bytes; }

bool watches(const channel::DebugStop& stop, bool write) {
  return stop.kind == channel::StopKind::access ||
         stop.kind == (write ? channel::StopKind::write : channel::StopKind::read);
}

}  // namespace

Debugger::Debugger(Vm& vm) : vm_{vm}, mailbox_{vm.channel.vm().debug}, state_(vm.vcpus.size()) {
  for (auto& unit : vm.vcpus) unit->cpu.debugger = this;
  load_stops();
}

Debugger::PerVcpu& Debugger::state_of(const VcpuUnit& unit) { return state_[unit.cpu.index]; }

// -- Running
Exit Debugger::run(VcpuUnit& unit, u64 budget) {
  PerVcpu& me = state_of(unit);
  const u64 start = unit.cpu.retired;
  if (told_of_hit(unit)) return Exit::breakpoint;
  if (me.stepping) {
    const Exit exit = step_once(unit, mailbox_.step_interrupts != 0);
    return exit == Exit::breakpoint ? stop_for(unit, channel::DebugReport::step) : exit;
  }
  if (me.pass && linear_pc(unit.cpu) == me.pass_at) {
    const Exit exit = step_once(unit, false);
    if (exit != Exit::breakpoint) return exit;
    if (me.hit) return stop_for(unit, channel::DebugReport::breakpoint);
  }
  me.pass = false;
  const u64 used = unit.cpu.retired - start;
  if (used >= budget) return Exit::budget_spent;
  const Exit exit = unit.engine->run(unit.cpu, budget - used);
  return exit == Exit::breakpoint ? stop_for(unit, channel::DebugReport::breakpoint) : exit;
}

// Without `interrupts` a running vCPU executes its instruction before any of them: else the timer, due again after
// every stop, would lead each step into its handler.
Exit Debugger::step_once(VcpuUnit& unit, bool interrupts) {
  cpu::Vcpu& cpu = unit.cpu;
  const bool shadow = cpu.interrupt_shadow;
  if (!interrupts && cpu.activity == cpu::Activity::running) cpu.interrupt_shadow = true;
  const Exit exit = unit.engine->step(cpu);
  if (exit != Exit::breakpoint) cpu.interrupt_shadow = shadow;  // nothing was executed
  return exit;
}

Exit Debugger::stop_for(VcpuUnit& unit, channel::DebugReport otherwise) {
  PerVcpu& me = state_of(unit);
  // An instruction that faulted after the access has not told the engine; the hit is too old then.
  me.owes_hit = me.hit && unit.cpu.retired - me.hit_retired <= 1;
  if (!told_of_hit(unit) && report(unit, otherwise)) {
    me.pass = true;
    me.pass_at = linear_pc(unit.cpu);
  }
  return Exit::breakpoint;
}

// True: there was a hit to tell. It stays owed while another vCPU's report goes first.
bool Debugger::told_of_hit(VcpuUnit& unit) {
  PerVcpu& me = state_of(unit);
  if (!me.owes_hit) {
    me.hit.reset();
    return false;
  }
  me.owes_hit = !report(unit, channel::DebugReport::watchpoint);
  return true;
}

// False: another vCPU has something to tell first.
bool Debugger::report(VcpuUnit& unit, channel::DebugReport what) {
  u32 nobody = 0;
  const bool first = mailbox_.reporter.compare_exchange_strong(nobody, unit.cpu.index + 1);
  if (first) {
    mailbox_.report = static_cast<u32>(what);
    if (const auto& hit = state_of(unit).hit; hit && what == channel::DebugReport::watchpoint) {
      mailbox_.report_kind = static_cast<u32>(hit->kind);
      mailbox_.report_address = hit->address;
    }
  }
  mailbox_.stop.store(1);
  for (auto& other : vm_.vcpus)
    if (other.get() != &unit) channel::kick(other->pages, cpu::attention::kick);
  return first;
}

void Debugger::crashed(VcpuUnit& unit) {
  while (mailbox_.attached.load(std::memory_order_relaxed)) {
    const bool told = report(unit, channel::DebugReport::crash);
    pause(unit);
    if (told) return;
  }
}

void Debugger::crashed_in_turns(VcpuUnit& unit) {
  if (!mailbox_.attached.load(std::memory_order_relaxed)) return;
  report(unit, channel::DebugReport::crash);
  unit.cpu.code->park(unit.cpu);
  pause_all();
}

// -- Pausing
void Debugger::announce_pause(u64 bits) {
  const u64 all = all_bits(vm_.vcpus.size());
  if ((mailbox_.paused.fetch_or(bits) | bits) != all) return;
  mailbox_.event.fetch_add(1);
  channel::futex_wake(mailbox_.event);
}

u32 Debugger::next_word(u32 seen) {
  u32 now;
  while ((now = mailbox_.epoch.load(std::memory_order_acquire)) == seen && !vm_.stopping())
    channel::futex_wait(mailbox_.epoch, seen);
  if (vm_.stopping()) finish(channel::EndKind::stopped, {});
  return now;
}

void Debugger::pause(VcpuUnit& unit) {
  if (!pausing()) return;
  unit.cpu.code->park(unit.cpu);
  u32 word = mailbox_.epoch.load();  // no command can come before the next line
  announce_pause(bit_of(unit));
  do {
    word = next_word(word);
    if (channel::command_of(word) != channel::DebugCommand::resume && channel::vcpu_of(word) == unit.cpu.index)
      execute(word, unit);
  } while (!resume(unit));
  unit.cpu.code->unpark(unit.cpu);
}

void Debugger::pause_all() {
  if (!pausing()) return;
  u32 word = mailbox_.epoch.load();
  announce_pause(all_bits(vm_.vcpus.size()));
  while (channel::command_of(word = next_word(word)) != channel::DebugCommand::resume)
    if (channel::vcpu_of(word) < vm_.vcpus.size()) execute(word, *vm_.vcpus[channel::vcpu_of(word)]);
  for (auto& unit : vm_.vcpus) state_of(*unit).held = !resume(*unit);
}

bool Debugger::held(const VcpuUnit& unit) const { return state_[unit.cpu.index].held; }

// False: it is to stay paused.
bool Debugger::resume(VcpuUnit& unit) {
  const auto go = static_cast<channel::Go>(mailbox_.go[unit.cpu.index].exchange(static_cast<u32>(channel::Go::no)));
  if (go == channel::Go::no) return false;
  PerVcpu& me = state_of(unit);
  me.stepping = go == channel::Go::step;
  if (!me.flush) return true;
  me.flush = false;
  unit.engine->flush();
  cpu::update_access(unit.cpu);
  return true;
}

// -- Commands
void Debugger::execute(u32 word, VcpuUnit& unit) {
  mailbox_.result = perform(channel::command_of(word), unit);
  mailbox_.done.store(word, std::memory_order_release);
  mailbox_.event.fetch_add(1);
  channel::futex_wake(mailbox_.event);
}

u32 Debugger::perform(channel::DebugCommand command, VcpuUnit& unit) {
  channel::DebugMailbox& m = mailbox_;
  const Gva address = m.address;
  const u32 length = std::min(m.length, channel::DebugMailbox::kDataBytes);
  u32 done = 0;
  switch (command) {
    case channel::DebugCommand::read_registers: {
      const channel::DebugRegisters r = read_registers(unit.cpu);
      std::memcpy(m.data, &r, sizeof r);
      return 1;
    }
    case channel::DebugCommand::write_registers: {
      channel::DebugRegisters r;
      std::memcpy(&r, m.data, sizeof r);
      write_registers(unit.cpu, r);
      return 1;
    }
    case channel::DebugCommand::read_memory:
      while (done < length && cpu::peek(unit.cpu, address.wrapping_add(done), m.data + done, 1)) done++;
      return done;
    case channel::DebugCommand::write_memory:
      while (done < length && cpu::poke(unit.cpu, address.wrapping_add(done), m.data + done, 1)) done++;
      return done;
    case channel::DebugCommand::translate: {
      Gpa gpa;
      if (!cpu::peek_translate(unit.cpu, address, &gpa)) return 0;
      std::memcpy(m.data, &gpa, sizeof gpa);
      return 1;
    }
    case channel::DebugCommand::load_stops:
      load_stops();
      return 1;
    default:
      return 0;
  }
}

void Debugger::load_stops() {
  breakpoints_.clear();
  watchpoints_.clear();
  const u32 count = std::min(mailbox_.stop_count, channel::DebugMailbox::kStops);
  for (u32 i = 0; i < count; i++) {
    const channel::DebugStop stop = mailbox_.stops[i];
    if (stop.kind == channel::StopKind::execute)
      breakpoints_.push_back(stop.address);
    else
      watchpoints_.push_back(stop);
  }
  std::sort(breakpoints_.begin(), breakpoints_.end());
  for (PerVcpu& v : state_) v.flush = true;
}

// -- What engines and MMU ask
bool Debugger::breakpoint_at(Gva linear) const {
  return std::binary_search(breakpoints_.begin(), breakpoints_.end(), linear);
}

bool Debugger::breakpoint_at_offset(u64 page_offset) const {
  return std::any_of(breakpoints_.begin(), breakpoints_.end(), [&](Gva at) { return at.page_offset() == page_offset; });
}

bool Debugger::accessed(cpu::Vcpu& cpu, Gva linear, u64 bytes, bool write) {
  for (const channel::DebugStop& w : watchpoints_) {
    if (!watches(w, write) || !overlap(linear, bytes, w.address, w.length)) continue;
    PerVcpu& me = state_[cpu.index];
    me.hit = w;
    me.hit_retired = cpu.retired;
    return true;
  }
  return false;
}

}  // namespace trapline::core
