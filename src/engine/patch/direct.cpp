#include "engine/patch/direct.h"

#include <signal.h>
#include <x86intrin.h>

#include <algorithm>
#include <utility>

#include "base/invariant.h"
#include "base/trace.h"
#include "channel/futex.h"
#include "cpu/debug_port.h"
#include "cpu/events.h"
#include "cpu/far_transfer.h"
#include "cpu/fpu.h"
#include "cpu/mmu_internal.h"
#include "cpu/write_watch.h"
#include "engine/common/sensitive_counts.h"
#include "engine/patch/vectors.h"

namespace trapline::engine::patch {

using cage::Cage;

namespace {

constexpr u32 kUserFlags = 0x244dd5;  // without RF, which every fault sets in its frame
constexpr u64 kVsyscall = 0xffffffffff600000;
constexpr u64 kLowerHalf = u64{1} << 47;
// While somebody watches writes (--verify), what runs here is to be interpreted too, at a hundredth of the speed: ticks
// from one stop to the next, and in all until it leaves.
constexpr u64 kWatched = 100'000, kWatchedInAll = 300'000;
// What 64-bit code runs with on Linux, as host and as guest.
constexpr u16 kUserCs = 0x33, kUserSs = 0x2b;

u16 selector(const cpu::Vcpu& cpu, cpu::Seg s) { return cpu.segment(s).selector; }

// Those that possible() asks for.
bool has_guests_selectors(const cage::Stop& stop) {
  return stop.cs == kUserCs && (stop.ds | stop.es | stop.fs | stop.gs) == 0;
}

}  // namespace

Direct::Direct(cpu::Vcpu& cpu, Cages& cages, const Tiers& tiers, unsigned vcpus)
    : cpu_{cpu}, cages_{cages}, tiers_{tiers}, handover_{cpu, channel::usable_cpus() > vcpus} {}

// -- Whether

// What a cage cannot show as the guest's CPU would is left to the translator.
bool Direct::possible() const {
  using cpu::Seg;
  // Of a kernel that runs at CPL 3 too, the stores to its page tables are not its own.
  if (cpu_.cpl != 3 || cpu::kernel_at_cpl3(cpu_) || !cpu_.in_long64() || cpu_.rip >= kLowerHalf) return false;
  const u32 flags = cpu_.sys_flags;
  if ((flags & (cpu::flag::tf | cpu::flag::iopl)) || !(flags & cpu::flag::if_)) return false;
  if (cpu_.interrupt_shadow || (cpu_.debug.dr7 & 0xff) || (cpu_.debugger && cpu_.debugger->any())) return false;
  if ((cpu_.cr0 & (cpu::cr0::em | cpu::cr0::ts)) || (~cpu_.cr0 & (cpu::cr0::ne | cpu::cr0::am))) return false;
  constexpr u64 kNeeded = cpu::cr4::osfxsr | cpu::cr4::osxmmexcpt | cpu::cr4::osxsave;
  if ((cpu_.cr4 & (kNeeded | cpu::cr4::tsd)) != kNeeded) return false;
  if ((cpu_.xcr0 & 0xe7) != host_components() || cpu_.x87.ferr) return false;
  if (cpu_.clock->instructions || cpu_.msr.tsc_adjust != 0) return false;  // RDTSC shows the host's
  return selector(cpu_, Seg::cs) == kUserCs && selector(cpu_, Seg::ss) == kUserSs && selector(cpu_, Seg::ds) == 0 &&
         selector(cpu_, Seg::es) == 0 && selector(cpu_, Seg::fs) == 0 && selector(cpu_, Seg::gs) == 0;
}

// A page of top-level tables is used again for the next program; what its entry for the stack names is not, or seldom.
u64 Direct::program() const {
  const Gpa top = root().wrapping_add(255 * sizeof(u64));
  if (!cpu_.ram->is_ram(top)) return root().raw;
  const u64 entry = __atomic_load_n(reinterpret_cast<const u64*>(cpu_.ram->host(top)), __ATOMIC_RELAXED);
  return root().raw ^ (entry & 0x000ffffffffff000) << 12;
}

bool Direct::takes() {
  left_user();
  if (cpu_.cpl != 3 || cpu::kernel_at_cpl3(cpu_)) return false;
  const u64 who = program();
  if (tiers_.direct(who)) return possible();
  // Two readings of the TSC are dear for who does little more between them.
  if (++translated_.skipped < translated_.stands_for) return false;
  translated_.skipped = 0;
  translated_.program = who, translated_.since = __rdtsc(), translated_.decoded = decoded();
  return false;
}

void Direct::left_user() {
  if (translated_.since == 0) return;
  constexpr u64 kBrief = 10'000;
  constexpr unsigned kSome = 4;
  const u64 ticks = __rdtsc() - translated_.since;
  const u64 n = ticks < kBrief ? translated_.stands_for : 1;
  tiers_.translated(translated_.program, ticks * n, (decoded() - translated_.decoded) * n, cpu_.cpl != 3 ? n : 0);
  translated_.since = 0;
  translated_.stands_for = ticks < kBrief ? kSome : 1;
}

// -- In

void Direct::enter(Cage& cage) {
  std::copy(cpu_.gpr, cpu_.gpr + 16, registers_.gpr);
  registers_.rip = cpu_.rip;
  registers_.rflags = cpu_.rflags();
  registers_.fs_base = cpu_.segment(cpu::Seg::fs).base;
  registers_.gs_base = cpu_.segment(cpu::Seg::gs).base;
  give_vectors(cpu_, cage.shared().vectors);
  vectors_at_ = Cage::kVectors;
  vectors_ran_ = false;
}

void Direct::resume(AddressSpace& space) {
  Cage& cage = space.cage();
  TRACE(cages, "resume {:#x}, rsp {:#x}", registers_.rip, registers_.gpr[4]);
  if (!cage.shared().exchange.fsgsbase) cage.set_bases(registers_.fs_base, registers_.gs_base);
  if (cpu::write_watch) cpu_.timer_deadline = std::min(timer_, cpu_.vm_tsc() + kWatched);
  const u32 polls = handover_.give(cage);
  cage.resume(registers_, vectors_at_, host_components(), polls);
}

// -- Out

void Direct::put_back(Cage& cage) {
  std::copy(registers_.gpr, registers_.gpr + 16, cpu_.gpr);
  cpu_.rip = registers_.rip;
  const u32 kept = cpu_.rflags() & ~kUserFlags;
  cpu_.set_rflags_raw(kept | (static_cast<u32>(registers_.rflags) & kUserFlags));
  if (cage.shared().exchange.fsgsbase) {
    if (cpu::canonical(registers_.fs_base)) cpu_.segment(cpu::Seg::fs).base = registers_.fs_base;
    if (cpu::canonical(registers_.gs_base)) cpu_.segment(cpu::Seg::gs).base = registers_.gs_base;
  }
  cpu::update_mode(cpu_);
  if (vectors_ran_) take_vectors(cpu_, cage.shared().stack + vectors_at_);
}

// What the guest has loaded since: selectors that its kernel has in its table where the host has the same. False: it has
// not, and the load should have been a fault.
bool Direct::adopt_selectors(const cage::Stop& stop) {
  using cpu::Seg;
  cpu::Descriptor code;
  if (stop.cs != kUserCs) {
    if (!cpu::check_return_code(cpu_, stop.cs, code)) return false;
    cpu::load_cs(cpu_, stop.cs, code, 3);
  }
  for (const auto& [seg, selector] :
       {std::pair{Seg::ds, stop.ds}, {Seg::es, stop.es}, {Seg::fs, stop.fs}, {Seg::gs, stop.gs}}) {
    if (selector == 0) continue;
    cpu::Segment loaded;
    if (!cpu::check_data_segment(cpu_, selector, 3, cpu::Vector::gp, loaded)) return false;
    cpu_.segment(seg) = loaded;
    cpu::update_segment(cpu_, seg);
  }
  cpu::update_mode(cpu_);
  return true;
}

ExitReason Direct::leave(AddressSpace& space, ExitReason why) {
  put_back(space.cage());
  return why;
}

// Only guest code that attacks the stub, or somebody outside, ends a cage. What its registers were nobody knows: the
// program gets the fault of code that has jumped to where the guest has nothing mapped.
ExitReason Direct::died(const Cage& cage) {
  tiers_.demote(program());
  cpu_.rip = cage.stub();
  cpu_.fault = cpu::Fault{cpu::Vector::pf, cpu::pf_error::user | cpu::pf_error::fetch, cage.stub(), 0};
  return ExitReason::fault;
}

ExitReason Direct::run() {
  constexpr unsigned kMostSingles = 20'000;
  INVARIANT(cpu_.cpl == 3 && cpu_.in_long64() && cpu_.rip < kLowerHalf, "{:#x} in ring {} is no user code", cpu_.rip,
            cpu_.cpl);
  AddressSpace* const space = cages_.make_current();
  if (!space) {
    tiers_.demote(program());
    return ExitReason::boundary;
  }
  if (space->take_ended()) {
    space->take_flush_ticks();
    tiers_.forget(program());
    return ExitReason::boundary;
  }
  cages_.check_code();
  if (space->cage().dead()) return died(space->cage());
  if (space->refused(Gva{cpu_.rip})) {
    if (++singles_ > kMostSingles) singles_ = 0, tiers_.demote(program());
    return ExitReason::one;
  }
  last_fault_ = ~u64{0};
  stay_ = {};
  stay_.beside = space->take_flush_ticks();
  enter(space->cage());
  timer_ = cpu_.timer_deadline;
  if (std::exchange(told_.root, Gpa{~u64{0}}) == root() && !cpu::write_watch &&
      !(told_.want == AddressSpace::Want::read && space->put_off(cpu_, told_.linear)))
    space->map_around(cpu_, told_.linear, told_.want);
  u64 since = __rdtsc();
  TRACE(cages, "enters after {} ticks outside", since - left_at_);
  ExitReason why = ExitReason::nothing;
  do {
    if (handover_.wants_out() || (cpu::write_watch && stay_.inside > kWatchedInAll)) {
      why = leave(*space, ExitReason::boundary);
      break;
    }
    if (space->refused(Gva{registers_.rip})) {
      why = leave(*space, ExitReason::one);
      break;
    }
    resume(*space);
    handover_.wait(space->cage());
    cage::Stop stop;
    if (space->cage().dead() || !space->cage().take(stop, registers_)) {
      why = died(space->cage());
      break;
    }
    const u64 now = __rdtsc(), all = now - since;
    TrapCost& trap = stop.signal == SIGSYS ? call_cost_ : fault_cost_;
    if (stop.signal == SIGSYS || stop.signal == SIGSEGV) trap.observe(stop.inside);
    const u64 inside = std::min(stop.inside - std::min(stop.inside, trap.ticks()), all);
    since = now;
    stay_.inside += inside;
    handover_.learn(inside, all - inside);
    // Who has lost the CPU to others for long would have lost it translating, too.
    constexpr u64 kMostBeside = 1'000'000;
    stay_.beside += std::min(all - inside, kMostBeside);
    count(stop);
    if (stop.kept) TRACE(cages, "kicked before it went on at {:#x}: {} ticks", registers_.rip, all);
    if (!stop.kept) {
      if (stop.fpstate == Cage::kNothing) {
        space->cage().kill();
        why = died(space->cage());
        break;
      }
      vectors_at_ = stop.fpstate;
      vectors_ran_ = true;
      TRACE(cages,
            "stopped at {:#x} of {:#x}, rax {}: signal {}, exception {}, error {:#x}, address {:#x}; {} ticks inside, "
            "{} beside, {}",
            registers_.rip, program(), registers_.gpr[0], stop.signal, stop.trap, stop.error, stop.cr2, inside,
            all - inside, handover_.apart() ? "apart" : "beside");
      if (has_guests_selectors(stop)) [[likely]] {
        why = serve(*space, stop);
      } else if (!adopt_selectors(stop)) {
        space->cage().kill();
        why = died(space->cage());
      } else if (why = serve(*space, stop); why == ExitReason::nothing) {
        why = leave(*space, ExitReason::boundary);
      }
    }
  } while (why == ExitReason::nothing);
  cpu_.timer_deadline = timer_;
  if (stay_.inside > 1'000'000) singles_ = 0;
  left_at_ = __rdtsc();
  cpu_.count.cage_inside += stay_.inside, cpu_.count.cage_beside += stay_.beside;
  tiers_.ran(program(), stay_);
  cpu_.count.cage_promotions = tiers_.promotions, cpu_.count.cage_demotions = tiers_.demotions;
  if (space->stub_in_the_way()) cages_.make_way();
  return why;
}

void Direct::count(const cage::Stop& stop) {
  channel::Counters& c = cpu_.count;
  if (stop.signal == cage::kKick)
    c.cage_kicks++;
  else if (stop.signal == SIGSYS)
    c.cage_calls++, stay_.calls++;
  else if (stop.signal == SIGSEGV && stop.trap == 14)
    c.cage_faults++, stay_.faults++;
  else
    c.cage_traps++, stay_.calls++;  // CPUID by the hundred, port accesses: they cost as much
}

// The instruction at RIP has trapped: the interpreter executes it. That it will count it as its own is made up for.
ExitReason Direct::emulate(AddressSpace& space) {
  const ExitReason why = leave(space, ExitReason::one);
  if (!sensitive_counts) [[likely]]
    return why;
  u8 bytes[15];
  for (u64 i = 0; i < sizeof bytes; i++) bytes[i] = guest_byte(Gva{cpu_.rip + i});
  isa::Insn insn;
  if (isa::decode(bytes, sizeof bytes, cpu_.code_size(), cpu_.vendor(), insn) != isa::DecodeStatus::ok) return why;
  if (u64* const trapped = sensitive_count(cpu_, insn, Way::trapped))
    ++*trapped, --*sensitive_count(cpu_, insn, Way::interpreted);
  return why;
}

ExitReason Direct::serve(AddressSpace& space, const cage::Stop& stop) {
  switch (stop.signal) {
    case cage::kKick:
      return ExitReason::nothing;
    case SIGSYS:
      return serve_call(space, stop);
    case SIGSEGV:
    case SIGBUS:
      if (stop.trap == 14) return serve_page_fault(space, stop);
      if (stop.trap == 4) registers_.rip -= 2;  // INT 4
      return emulate(space);
    case SIGTRAP:
      return serve_trap(space, stop);
    case SIGILL:
      if (passed_filter(stop)) return serve_call(space, stop);
      return emulate(space);
    default:
      return emulate(space);
  }
}

// SYSCALL or INT 80, both of two bytes: the interpreter executes it. What the host has done to RCX and R11 the guest's
// CPU does too.
ExitReason Direct::serve_call(AddressSpace& space, const cage::Stop& stop) {
  if ((stop.call_address & ~u64{kPageSize - 1}) == kVsyscall) {  // the host has done its RET
    registers_.rip = stop.call_address;
    registers_.gpr[4] -= 8;
  } else {
    registers_.rip -= 2;
  }
  return emulate(space);
}

// Linux (6.14 and later) runs two system calls past every seccomp filter, those by which its probes return. To anyone
// else the first raises SIGILL, with -1 in RAX: what was there is lost, and means nothing to a guest.
bool Direct::passed_filter(const cage::Stop& stop) {
  constexpr u64 kUretprobe = 335;
  if (stop.code != SI_KERNEL || registers_.gpr[1] != registers_.rip || registers_.gpr[0] != ~u64{0}) return false;
  if (guest_byte(Gva{registers_.rip - 2}) != 0x0f || guest_byte(Gva{registers_.rip - 1}) != 0x05) return false;
  registers_.gpr[0] = kUretprobe;
  return true;
}

u8 Direct::guest_byte(Gva linear) const {
  u8 byte = 0;
  cpu::peek(cpu_, linear, &byte, 1);
  return byte;
}

ExitReason Direct::serve_trap(AddressSpace& space, const cage::Stop& stop) {
  if (stop.trap == 3) {
    // INT 3 of two bytes, or INT3, of the guest's or in our copy. What is there now may be something else already.
    const bool two = guest_byte(Gva{registers_.rip - 2}) == 0xcd && guest_byte(Gva{registers_.rip - 1}) == 3;
    registers_.rip -= two ? 2 : 1;
    return emulate(space);
  }
  // INT1 has no bit in DR6, a step has: the second of two POPF may have cleared TF. A hypervisor of AMD's leaves RIP where
  // it was.
  if (stop.code != TRAP_TRACE) {
    if (guest_byte(Gva{registers_.rip - 1}) == 0xf1) registers_.rip -= 1;
    return emulate(space);
  }
  // POPF has set TF: the instruction behind it has been executed, or an element of a REP, of which RF tells.
  put_back(space.cage());
  cpu_.set_rflags_raw((cpu_.rflags() & ~cpu::flag::rf) | (static_cast<u32>(registers_.rflags) & cpu::flag::rf));
  return cpu::debug_trap(cpu_, cpu::dr6::bs) == cpu::Outcome::stop ? ExitReason::stop : ExitReason::boundary;
}

// A page that holds code is written to one instruction at a time. A compiler that fills its buffer beside what it has
// made before would stay here for ever: at the second write in a row the page is one of data, until it is executed
// again. True: this write is the interpreter's.
bool Direct::writes_code(Gva linear) {
  const UserPage page = UserRegion{cpu_, root(), linear}.page(linear.frame() % 512);
  if (!page.present || !page.writable || !cpu::is_plain_ram(cpu_, page.gpa) || !cages_.holds_code(page.gpa))
    return false;
  if (std::exchange(written_code_, page.gpa) != page.gpa) return true;
  cages_.give_up(page.gpa);
  return false;
}

// Do the guest's tables allow the access? cpu_.fault says how not.
bool Direct::allows(Gva address, AddressSpace::Want want) {
  using Want = AddressSpace::Want;
  const cpu::AlignmentUnchecked unchecked{cpu_};  // AC is as it was when the cage was entered
  if (want == Want::fetch) return cpu::fetch_lookup(cpu_, address) != nullptr;
  return cpu::probe(cpu_, cpu::Seg::ds, address, 1, want == Want::write ? cpu::Access::write : cpu::Access::read);
}

ExitReason Direct::serve_page_fault(AddressSpace& space, const cage::Stop& stop) {
  using Want = AddressSpace::Want;
  const Want want = stop.error & cpu::pf_error::fetch   ? Want::fetch
                    : stop.error & cpu::pf_error::write ? Want::write
                                                        : Want::read;
  const Gva address{stop.cr2};
  cages_.check_code();
  // What is fetched after it was overwritten is no measure of how much code there is.
  if (want == Want::fetch) {
    const Gpa page = UserRegion{cpu_, root(), address}.page(address.frame() % 512).gpa;
    stay_.fetches += !cages_.rewritten(page);
    if (page == written_code_) written_code_ = Gpa{~u64{0}};
  }
  if (!allows(address, want)) {
    const cpu::Fault fault = cpu_.fault;
    told_ = {root(), address, want};
    put_back(space.cage());
    cpu_.fault = fault;
    return ExitReason::fault;
  }
  // The host may be out of mappings: begin again with few.
  const u64 key = stop.cr2 ^ static_cast<u64>(want) << 60;
  same_faults_ = key == last_fault_ ? same_faults_ + 1 : 0;
  last_fault_ = key;
  if (same_faults_ > 4) {
    space.clear();
    if (same_faults_ > 8) tiers_.demote(program());
    return leave(space, ExitReason::one);
  }
  if (space.cage().dead()) return died(space.cage());
  if (want == Want::read && space.put_off(cpu_, address)) return leave(space, ExitReason::one);
  if (want == Want::write && writes_code(address))
    return space.cage().dead() ? died(space.cage()) : leave(space, ExitReason::one);
  if (!space.map_around(cpu_, address, want)) return leave(space, ExitReason::one);
  return space.cage().dead() ? died(space.cage()) : ExitReason::nothing;
}

}  // namespace trapline::engine::patch
