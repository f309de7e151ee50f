#include "fuzz/guest.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cage/pool.h"
#include "cpu/code_map.h"
#include "cpu/fpu.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "engine/emit/code_arena.h"
#include "engine/options.h"
#include "engine/registry.h"
#include "engine/vector/vector_unit.h"
#include "fuzz/native.h"
#include "fuzz/watchdog.h"

namespace trapline::fuzz {

namespace {

// Guest physical places. System pages are mapped once more at kSystem in the upper half, for CPL 0 alone.
constexpr u64 kTables = 0x10000;  // page tables grow from here
constexpr u64 kSystemGpa = 0x100000, kGdt = 0, kTss = 0x1000, kIdt = 0x2000, kHandlers = 0x3000, kStackTop = 0x5000,
              kSystemSize = 0x5000;
constexpr u64 kCodeGpa = 0x200000, kDataGpa = 0x300000, kReadOnlyGpa = 0x400000, kStackGpa = 0x500000;
constexpr u64 kSystem = 0xffff800000000000;
constexpr u64 kRam = 16 * MiB;
constexpr u64 kBudget = 5000;  // instructions of one sequence; more is a loop
// As Linux has them, since MOV from segment registers and pushes show them.
constexpr u16 kKernelCs = 0x10, kUserCs = 0x33, kUserCs32 = 0x23, kUserSs = 0x2b, kTssSelector = 0x40;
constexpr u64 kPresent = 1, kWrite = 2, kUser = 4, kNoExecute = u64{1} << 63;

struct NoBus final : cpu::Bus {
  u32 port_read(cpu::Vcpu&, u16, unsigned) override { return ~0u; }
  void port_write(cpu::Vcpu&, u16, unsigned, u32) override {}
  u64 mmio_read(cpu::Vcpu&, Gpa, unsigned) override { return ~u64{0}; }
  void mmio_write(cpu::Vcpu&, Gpa, unsigned, u64) override {}
  u8 pic_acknowledge(cpu::Vcpu&) override { return 0; }
  void ioapic_eoi(cpu::Vcpu&, u8) override {}
};

}  // namespace

void drop_upper_halves(Registers& r) {
  for (unsigned i = 0; i < 8; i++) r.gpr[i] &= 0xffffffff;
}

namespace {

cpu::Segment segment(u16 selector, u16 attr, u64 base = 0) {
  cpu::Segment s;
  s.selector = selector;
  s.attr = attr;
  s.limit = 0xffffffff;
  s.base = base;
  s.usable = true;
  return s;
}

// Is CR4.FSGSBASE set? Linux says so only where it uses it (HWCAP2_FSGSBASE): a hypervisor below may have set it all
// the same. So a process tries.
bool host_has_fsgsbase() {
  static const bool value = [] {
    const int pid = ::fork();
    if (pid == 0) {
      asm volatile("rdgsbase %%rax" : : : "rax");
      ::_exit(0);
    }
    int status = 0;
    while (pid > 0 && ::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid > 0 && WIFEXITED(status);
  }();
  return value;
}

}  // namespace

struct Guest::Impl {
  GuestMemory ram;
  std::unique_ptr<cpu::CodeMap> code;
  std::optional<cpu::Cpuid> cpuid;
  cpu::Clock clock;
  cpu::LapicInbox inbox{};
  cpu::LapicMirror mirror{};
  NoBus bus;
  cpu::Vcpu cpu;
  std::unique_ptr<cpu::Lapic> lapic;
  std::unique_ptr<engine::CodeArena> arena;
  std::unique_ptr<engine::Engine> engine;
  u64 next_table = kTables;
  std::unique_ptr<cage::Pool> cages;
  std::optional<Watchdog> watchdog;  // of an engine that does not count
  Result<GuestMemory, std::string> make_ram(bool with_cages);

  template <class T>
  void put(u64 gpa, T value) {
    std::memcpy(ram.host(Gpa{gpa}), &value, sizeof value);
  }
  template <class T>
  T get(u64 gpa) const {
    T value;
    std::memcpy(&value, ram.host(Gpa{gpa}), sizeof value);
    return value;
  }
  u64 new_table() {
    const u64 t = next_table;
    next_table += kPageSize;
    return t;
  }

  void map(u64 linear, u64 gpa, u64 size, u64 bits);
  void make_tables();
  void make_system_pages();
  cpu::Segment code_segment(isa::CodeSize size, std::size_t slot) const;
  void enter(const Program& program, std::size_t slot);
  void leave(Snapshot& out, Ending& ending, engine::Exit exit);
  void load_x87(const Registers& r);
  void save_x87(Registers& r) const;
};

void Guest::Impl::map(u64 linear, u64 gpa, u64 size, u64 bits) {
  for (u64 offset = 0; offset < size; offset += kPageSize) {
    u64 table = cpu.cr3;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
      const u64 entry = table + 8 * ((linear + offset) >> shift & 511);
      if (!(get<u64>(entry) & kPresent)) put<u64>(entry, new_table() | kPresent | kWrite | kUser);
      table = get<u64>(entry) & 0xffffffffff000;
    }
    put<u64>(table + 8 * ((linear + offset) >> 12 & 511), (gpa + offset) | bits);
  }
}

void Guest::Impl::make_tables() {
  cpu.cr3 = new_table();
  map(place::code, kCodeGpa, place::code_size, kPresent | kUser);
  map(place::data, kDataGpa, place::data_size, kPresent | kWrite | kUser | kNoExecute);
  map(place::read_only, kReadOnlyGpa, place::read_only_size, kPresent | kUser | kNoExecute);
  map(place::stack, kStackGpa, place::stack_size, kPresent | kWrite | kUser | kNoExecute);
  map(kSystem, kSystemGpa, kSystemSize, kPresent | kWrite);
  std::memcpy(ram.host(Gpa{kReadOnlyGpa}), Native::read_only_page(), place::read_only_size);
}

void Guest::Impl::make_system_pages() {
  put<u64>(kSystemGpa + kGdt + kKernelCs, 0x00af9b000000ffff);
  put<u64>(kSystemGpa + kGdt + 0x18, 0x00cf93000000ffff);
  put<u64>(kSystemGpa + kGdt + (kUserCs32 & ~7), 0x00cffb000000ffff);
  put<u64>(kSystemGpa + kGdt + (kUserSs & ~7), 0x00cff3000000ffff);
  put<u64>(kSystemGpa + kGdt + (kUserCs & ~7), 0x00affb000000ffff);
  put<u64>(kSystemGpa + kTss + 4, kSystem + kStackTop);
  put<u16>(kSystemGpa + kTss + 0x66, 0x68);  // no I/O bitmap: every port is forbidden
  for (u64 v = 0; v < 256; v++) {
    const u64 handler = kSystem + kHandlers + v;
    const u64 dpl = v == 3 || v == 4 ? 3 : 0;  // INT3 and INT 4, as Linux has it
    put<u64>(kSystemGpa + kIdt + 16 * v,
             (handler & 0xffff) | u64{kKernelCs} << 16 | (0x8e00 | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48);
    put<u64>(kSystemGpa + kIdt + 16 * v + 8, handler >> 32);
    put<u8>(kSystemGpa + kHandlers + v, 0xf4);  // HLT
  }
}

void Guest::Impl::load_x87(const Registers& r) {
  cpu.x87.live = false;
  std::memcpy(cpu.x87.image, r.x87, sizeof r.x87);
  std::memcpy(&cpu.x87.fop, r.x87 + 6, 2);
  std::memcpy(&cpu.x87.fip, r.x87 + 8, 8);
  std::memcpy(&cpu.x87.fdp, r.x87 + 16, 8);
  cpu.x87.fcs = cpu.x87.fds = 0;
}

void Guest::Impl::save_x87(Registers& r) const {
  std::memcpy(r.x87, cpu.x87.image, sizeof r.x87);
  r.x87[5] = 0;
  std::memcpy(r.x87 + 6, &cpu.x87.fop, 2);
  std::memcpy(r.x87 + 8, &cpu.x87.fip, 8);
  std::memcpy(r.x87 + 16, &cpu.x87.fdp, 8);
}

cpu::Segment Guest::Impl::code_segment(isa::CodeSize size, std::size_t slot) const {
  if (size == isa::CodeSize::bits64) return segment(kUserCs, 0xa0fb);
  if (size == isa::CodeSize::bits32) return segment(kUserCs32, 0xc0fb);
  cpu::Segment s = segment(code16_selector(slot), 0x00fb, code_base(size, slot));
  s.limit = 0xffff;
  return s;
}

void Guest::Impl::enter(const Program& program, std::size_t slot) {
  const Snapshot& start = program.initial;
  const Registers& r = start.regs;
  std::memcpy(cpu.gpr, r.gpr, sizeof r.gpr);
  cpu.rip = code_at(slot) - code_base(program.size, slot);
  cpu.set_rflags_raw(static_cast<u32>(r.rflags));
  cpu.cpl = 3;
  cpu.segment(isa::Seg::cs) = code_segment(program.size, slot);
  cpu.segment(isa::Seg::ss) = segment(kUserSs, 0xc0f3);
  for (const isa::Seg s : {isa::Seg::ds, isa::Seg::es, isa::Seg::fs, isa::Seg::gs}) {
    const bool null = program.size == isa::CodeSize::bits64 || s == isa::Seg::fs || s == isa::Seg::gs;
    cpu.segment(s) = null ? segment(0, 0) : segment(kUserSs, 0xc0f3);
    cpu.segment(s).usable = !null;
  }
  cpu.segment(isa::Seg::gs).base = place::gs_base;
  cpu.debug.dr6 = 0xffff0ff0;
  cpu.debug_hits = 0;
  cpu.interrupt_shadow = false;
  cpu.cr2 = 0;
  cpu.activity = cpu::Activity::running;
  std::memcpy(cpu.vec.zmm, r.zmm, sizeof r.zmm);
  std::memcpy(cpu.vec.k, r.k, sizeof r.k);
  cpu.vec.mxcsr = r.mxcsr;
  load_x87(r);
  std::memcpy(ram.host(Gpa{kDataGpa}), start.memory.data, place::data_size);
  std::memcpy(ram.host(Gpa{kStackGpa}), start.memory.stack, place::stack_size);
  cpu::update_mode(cpu);
}

// The frame that delivery pushed on the CPL 0 stack holds the interrupted RIP, RFLAGS and RSP (SDM Vol. 3A 6.14.2).
void Guest::Impl::leave(Snapshot& out, Ending& ending, engine::Exit exit) {
  Registers& r = out.regs;
  std::memcpy(r.gpr, cpu.gpr, sizeof r.gpr);
  r.rip = cpu.rip;
  r.rflags = cpu.rflags();
  ending = {exit == engine::Exit::halted                                         ? Ending::Kind::event
            : exit == engine::Exit::budget_spent || exit == engine::Exit::kicked ? Ending::Kind::timeout
                                                                                 : Ending::Kind::lost,
            0, 0, 0};
  const u64 handler = cpu.rip - 1 - (kSystem + kHandlers);
  const bool coded = handler < 32 && cpu::has_error_code(static_cast<cpu::Vector>(handler));
  const u64 frame = kStackTop - (coded ? 48 : 40);
  if (exit == engine::Exit::halted && handler < 256 && cpu.gpr[isa::rsp] == kSystem + frame) {
    ending.vector = static_cast<u8>(handler);
    ending.error = coded ? static_cast<u32>(get<u64>(kSystemGpa + frame)) : 0;
    ending.address = cpu.cr2;
    const u64 rip = kSystemGpa + frame + (coded ? 8 : 0);
    r.rip = get<u64>(rip);
    r.rflags = get<u64>(rip + 16);
    r.gpr[isa::rsp] = get<u64>(rip + 24);
  } else if (ending.kind == Ending::Kind::event) {
    ending.kind = Ending::Kind::lost;  // halted elsewhere: something that only a kernel gets out of
  }
  std::memcpy(r.zmm, cpu.vec.zmm, sizeof r.zmm);
  std::memcpy(r.k, cpu.vec.k, sizeof r.k);
  r.mxcsr = cpu.vec.mxcsr;
  cpu::x87_park(cpu);
  save_x87(r);
  std::memcpy(out.memory.data, ram.host(Gpa{kDataGpa}), place::data_size);
  std::memcpy(out.memory.stack, ram.host(Gpa{kStackGpa}), place::stack_size);
}

// With cages, which must be made while there is but one thread.
Result<GuestMemory, std::string> Guest::Impl::make_ram(bool with_cages) {
  if (!with_cages) return GuestMemory::anonymous(kRam);
  auto fd = GuestMemory::create_fd(kRam);
  if (!fd) return Err{fd.error()};
  constexpr unsigned kCages = 1, kCopyPages = 64;
  auto pool = cage::Pool::make(kCages, *fd, kCopyPages);
  auto memory = pool ? GuestMemory::map(*fd, kRam) : Err{pool.error()};
  ::close(*fd);
  if (pool) cages = std::move(*pool);
  return memory;
}

Guest::Guest() : impl_{std::make_unique<Impl>()} {}

Guest::~Guest() {
  impl_->engine.reset();
  cpu::mmu_destroy(impl_->cpu);
}

Result<std::unique_ptr<Guest>, std::string> Guest::make(const std::string& engine, bool counted) {
  const engine::EngineKind* kind = engine::find_engine(engine);
  if (!kind) return Err{fmt::format("fuzz: --engine {}{}", engine, engine::no_engine())};
  if (const std::string lacks = kind->missing(); !lacks.empty())
    return Err{fmt::format("fuzz: --engine {}: this host lacks {}: use interpret", kind->name, lacks)};
  std::unique_ptr<Guest> g(new Guest);
  Impl& m = *g->impl_;
  auto ram = m.make_ram(kind->cages);
  if (!ram) return Err{ram.error()};
  m.ram = std::move(*ram);
  auto cpuid = cpu::Cpuid::make({.cpus = 1, .para_kvm = false, .tsc_khz = 1'000'000});
  if (!cpuid) return Err{cpuid.error()};
  m.cpuid = std::move(*cpuid);
  m.code = std::make_unique<cpu::CodeMap>(m.ram);

  cpu::Vcpu& c = m.cpu;
  c.ram = &m.ram;
  c.ram_base = m.ram.base();
  c.bus = &m.bus;
  c.clock = &m.clock;
  c.code = m.code.get();
  c.cpuid = &*m.cpuid;
  m.lapic = std::make_unique<cpu::Lapic>(c, m.inbox, m.mirror);
  c.lapic = m.lapic.get();
  cpu::mmu_create(c);
  m.code->add_vcpu(&c);
  cpu::reset(c, false);

  m.make_tables();
  m.make_system_pages();
  using namespace cpu;
  c.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::pg;
  c.cr4 =
      (cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | (host_has_fsgsbase() ? cr4::fsgsbase : 0)) &
      m.cpuid->cr4_allowed();
  c.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
  c.xcr0 = m.cpuid->xcr0_allowed();
  c.gdtr = {kSystem + kGdt, 0x4f};
  c.idtr = {kSystem + kIdt, 0xfff};
  c.tr = segment(kTssSelector, 0x8b, kSystem + kTss);
  c.tr.limit = 0x67;
  c.ldtr.usable = false;
  update_mode(c);
  tlb_flush_all(c);

  engine::install_vector_signal_handler();
  engine::EngineOptions options;
  options.hot_threshold = 1;  // a sequence runs once
  options.count_instructions = counted;
  if (m.cages) {
    options.cages.pool = m.cages.get();
    options.debug.direct_always = true;
  }
  if (!counted || m.cages) m.watchdog.emplace(*c.attention);
  m.arena = std::make_unique<engine::CodeArena>(kind->arena_bytes);
  m.engine = kind->make(c, *m.arena, {}, options);
  return g;
}

void Guest::load(const std::vector<const Program*>& programs) {
  Impl& m = *impl_;
  for (std::size_t i = 0; i < programs.size(); i++) {
    const auto code = layout(programs[i]->items, place::code + i * place::slot);
    std::memcpy(m.ram.host(Gpa{kCodeGpa + i * place::slot}), code.data(), code.size());
  }
  const u64 used = programs.size() * place::slot;
  for (u64 offset = 0; offset < used; offset += kPageSize)
    m.code->written((kCodeGpa + offset) / kPageSize, 0, static_cast<u32>(kPageSize));
}

u64 Guest::cage_stops() const {
  const cpu::Vcpu::Counters& count = impl_->cpu.count;
  return count.cage_calls + count.cage_faults + count.cage_traps + count.cage_kicks;
}

void Guest::run(const Program& program, std::size_t index, Outcome& out) {
  Impl& m = *impl_;
  m.enter(program, index);
  if (m.watchdog) m.watchdog->begin();
  engine::Exit exit;
  do exit = m.engine->run(m.cpu, kBudget);
  while (exit == engine::Exit::kicked && !(m.watchdog && m.watchdog->gave_up()));
  m.leave(out.state, out.ending, exit);
  if (program.size != isa::CodeSize::bits64) drop_upper_halves(out.state.regs);
}

}  // namespace trapline::fuzz
