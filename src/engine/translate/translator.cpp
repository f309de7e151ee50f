#include "engine/translate/translator.h"

#include <immintrin.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/debug_port.h"
#include "cpu/fpu.h"
#include "engine/common/code_names.h"
#include "engine/common/signal_hook.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/listing.h"
#include "engine/interpret/block_cache.h"
#include "engine/interpret/op.h"

namespace trapline::engine::translate {

using cpu::Outcome;
using cpu::Vcpu;

namespace {

constexpr u64 kThunkArena = 4 * MiB;
constexpr u64 kMostBytes = 48 * kLongest;  // of a block

// Bits of Key::mode above the interpreter's.
constexpr u32 kViewShift = 8, kSse = 1 << 10, kAvx = 1 << 11, kAvx512 = 1 << 12, kFsFlat = 1 << 13, kGsFlat = 1 << 14,
              kX87 = 1 << 15, kInner = 1 << 16;

// <linux/signal.h> has it; glibc 2.36 does not.
constexpr u32 kAutoDisarm = 1u << 31;

thread_local Translator* current = nullptr;  // whose code runs on this thread

u64 saturated(u64 a, u64 b) { return a + b < a ? ~u64{0} : a + b; }

bool flat(const cpu::Segment& s) { return s.flat_read && s.flat_write; }

void on_alarm(int) {
  if (current) current->alarm();
}

void write_gs_base(u64 base) { asm volatile("wrgsbase %0" : : "r"(base) : "memory"); }

}  // namespace

std::unique_ptr<Translator> Translator::make(Vcpu& cpu, const VcpuSpace& space, const EngineOptions& options,
                                             std::string* why) {
  if (*why = missing_on_host(); !why->empty()) return nullptr;
  std::unique_ptr<Translator> t{new Translator{cpu, options}};
  t->region_ = Region::make(reinterpret_cast<u64>(&cpu), space.near, kCodeBytes);
  t->views_ = Views::make(cpu, space.far);
  if (!t->region_ || !t->region_->reaches(reinterpret_cast<u64>(&cpu)) ||
      !t->region_->reaches(reinterpret_cast<u64>(&cpu + 1)) || !t->views_) {
    *why =
        "address space for its code (64 MiB a vCPU, near the heap) and tables (6 TiB a vCPU; does ulimit -v limit it?)";
    return nullptr;
  }
  State& s = t->region_->state();
  s.page_bits = Views::kPageBits;
  s.jump_bits = JumpCache::kMask;
  s.write_table = Views::kWriteTable;
  t->trap_site_.kind = ExitStub::Kind::trap;
  t->emitter_.begin(t->region_->next());
  t->memory_lowering_.emplace(s, t->ways_, options.debug);
  t->front_.emplace(t->vector_, *t->memory_lowering_, options.debug);
  t->cache_.emplace(cpu, *t->region_, t->views_->jumps(), !options.debug.no_links);
  t->thunks_ = emit_thunks(t->emitter_, cpu, s, on_call, t.get(), &t->trap_site_);
  t->memory_lowering_->emit_thunks(t->emitter_, cpu, t->thunks_.call);
  INVARIANT(t->region_->add({t->emitter_.data(), t->emitter_.size()}, {}), "no room for {} bytes of thunks",
            t->emitter_.size());
  name_code(t->region_->next() - t->region_->used(), t->region_->used(), 0, cpu.index);
  t->code_start_ = t->region_->used();
  cpu.tlb_mirror = t->views_.get();
  signal_hook = handle_signal;
  if (!t->counted_) {
    struct sigaction action = {};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    INVARIANT(sigaction(SIGALRM, &action, nullptr) == 0, "sigaction of SIGALRM failed");
  }
  if (cpu.code) cpu.code->watch();
  return t;
}

Translator::Translator(Vcpu& cpu, const EngineOptions& options)
    : cpu_{cpu},
      options_{options},
      ways_{host_ways(options.debug)},
      arena_{kThunkArena},
      vector_{arena_},
      counted_{options.count_instructions} {}

Translator::~Translator() {
  if (has_timer_) timer_delete(timer_);
  if (cpu_.tlb_mirror == views_.get()) cpu_.tlb_mirror = nullptr;
  if (current == this) current = nullptr;
}

u32 Translator::threshold() const { return options_.hot_threshold; }

void Translator::flush() {
  cache_->clear();
  modes_.clear();
  tag_ = JumpCache::kTags;
  region_->reset(code_start_);
  entered_ = nullptr;
}

// -- Block by block
bool Translator::go_block_by_block() {
  views_->jumps().forget_all();
  block_by_block_ = counted_;
  return block_by_block_;
}

void Translator::revoke_writes() {
  for (const Page& p : writable_) views_->forget_write(p.view, p.linear);
  writable_.clear();
}

std::vector<ThunkName> Translator::thunk_names() const {
  std::vector<ThunkName> names{{thunks_.call, "call"}, {thunks_.load_vec, "load_vec"}, {thunks_.indirect, "displaced"}};
  memory_lowering_->each_thunk([&](u64 address, const char* name) { names.push_back({address, name}); });
  return names;
}

std::string Translator::listing() const {
  return entered_ ? list({cpu_, region_->state(), thunk_names(), cache_->sites()}, *entered_, true, true)
                  : std::string{};
}

// -- Modes
View Translator::view_of(const Vcpu& cpu) {
  return cpu.cpl == 3 ? View::user : cpu.need_read & cpu::perm::kernel_ac_read ? View::kernel_ac : View::kernel;
}

u32 Translator::mode_of(u32 key, View* view) const {
  u32 mode = key & 0xff;
  *view = view_of(cpu_);
  mode |= static_cast<u32>(*view) << kViewShift;
  if (cpu_.cpl == 1 || cpu_.cpl == 2) mode |= kInner;  // ring 0's pages, ring 3's instructions
  if (!(cpu_.cr0 & (cpu::cr0::em | cpu::cr0::ts))) {
    if (cpu_.cr0 & cpu::cr0::ne) mode |= kX87;
    if (cpu_.cr4 & cpu::cr4::osfxsr) mode |= kSse;
    if (cpu_.cr4 & cpu::cr4::osxsave) {
      if ((cpu_.xcr0 & 6) == 6) mode |= kAvx;
      if ((cpu_.xcr0 & 0xe6) == 0xe6) mode |= kAvx512;
    }
  }
  if (!cpu_.in_long64()) {
    if (flat(cpu_.seg[static_cast<u8>(cpu::Seg::fs)])) mode |= kFsFlat;
    if (flat(cpu_.seg[static_cast<u8>(cpu::Seg::gs)])) mode |= kGsFlat;
  }
  return mode;
}

namespace {

bool translatable(const Vcpu& cpu, u32 key) {
  namespace k = interpret::key;
  if (cpu.need_read & cpu::perm::never || cpu.need_write & cpu::perm::never) return false;
  if (cpu.debugger && cpu.debugger->any()) return false;
  if ((key & k::size_mask) == 2) return true;
  constexpr u32 flat32 = 1 | k::ss_big | k::flat_data | k::flat_code;
  return (key & flat32) == flat32;
}

}  // namespace

// Before anything is looked up in, or put into, the view's jump cache.
void Translator::set_mode(u32 mode, View view) {
  view_ = view;
  if (mode == mode_ && tag_ < JumpCache::kTags) return;
  mode_ = mode;
  tag_ = tag_of(mode);
}

u8 Translator::tag_of(u32 mode) const {
  const auto known = std::find(modes_.begin(), modes_.end(), mode);
  return known == modes_.end() ? JumpCache::kTags : static_cast<u8>(known - modes_.begin());
}

void Translator::set_view(View view) {
  State& s = region_->state();
  s.tables = views_->base(view);
  s.victims = views_->jumps().victims(view);
  if (ways_.gs_base)
    write_gs_base(s.tables);
  else
    s.write_table = s.tables + Views::kWriteTable;
}

// -- Blocks
// The block for cpu.rip if there is one and its page is mapped as it was; puts it into the jump cache.
Block* Translator::at_rip() {
  const u64 linear = cpu_.rip & cpu_.linear_mask;
  const cpu::TlbEntry* page = cpu::fetch_lookup(cpu_, linear);
  if (!page) return nullptr;
  const u64 gpa = page->gpa | (linear & (kPageSize - 1));
  Block* block = cache_->find(linear, gpa, mode_);
  if (!block) return nullptr;
  if (!block_by_block_ && !options_.debug.no_jump_cache)
    views_->jumps().put(block->view, linear, tag_, block->entry, block->stable);
  return block;
}

// --dump: once, as it is before links are made.
void Translator::dump(const Block& block) {
  constexpr u64 kMost = 256 * MiB;
  if (dumped_ >= kMost) return;
  trace::emit(trace::blocks,
              fmt::format("dump {:#x} (gpa {:#x}), mode {:#x}: {} instructions, {} -> {} bytes", block.key.linear,
                          block.key.gpa, block.key.mode, block.count, block.bytes, block.end - block.entry));
  const std::string lines = list({cpu_, region_->state(), thunk_names(), cache_->sites(), block.first_site}, block,
                                 options_.dump_guest, options_.dump_host);
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = lines.find('\n', at);
    trace::emit(trace::blocks, std::string_view{lines}.substr(at, end - at));
    at = end + 1;
  }
  dumped_ += lines.size();
  if (dumped_ >= kMost) trace::emit(trace::blocks, fmt::format("dump ends after {} bytes", dumped_));
}

namespace {

void miscompile_one(const Miscompile& miscompile, std::vector<TranslatedInsn>& pieces, u64 linear) {
  for (TranslatedInsn& p : pieces) {
    if (linear + p.at != miscompile.address) continue;
    if (miscompile.how == Miscompile::How::value) p.insn.bytes[p.insn.length - 1u] ^= 1;
    if (miscompile.how == Miscompile::How::place) p.insn.mem.disp += 8;
    if (miscompile.how == Miscompile::How::drop) p.treatment = Treatment::nothing;
  }
}

}  // namespace

// What is translated already is not translated again: much code is limited by how fast it can be fetched. Behind a
// conditional branch a block goes on only if it was mostly not taken so far.
bool Translator::ends_at(const CodeCache::Starts& starts, const interpret::BlockCache& decoded, u32 key,
                         const Key& next) const {
  if (block_by_block_) return false;                                     // the longer a block, the more is compared
  if (pieces_.back().insn.mnemonic == ZYDIS_MNEMONIC_STI) return false;  // its shadow
  if (starts.test(next.gpa & (kPageSize - 1)) && cache_->find(next)) return true;
  if (pieces_.back().treatment != Treatment::branch) return false;
  const interpret::Block* const other = decoded.find(next.gpa, key);
  return !other || other->heat > threshold() / 2;
}

bool Translator::translate(Vcpu& cpu, u32 key, u64 linear, u64 gpa, const interpret::BlockCache& decoded) {
  if (!counted_) return make_block(cpu, key, linear, gpa, decoded);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const bool made = make_block(cpu, key, linear, gpa, decoded);
  cpu.count.translating_ns += static_cast<u64>(std::chrono::nanoseconds{Clock::now() - start}.count());
  return made;
}

// False: there are too many modes, and all is gone.
bool Translator::tag_for(u32 mode, u8* tag) {
  if (*tag = tag_of(mode); *tag < JumpCache::kTags) return true;
  if (modes_.size() == JumpCache::kTags) {
    flush();
    return false;
  }
  *tag = static_cast<u8>(modes_.size());
  modes_.push_back(mode);
  return true;
}

bool Translator::make_block(Vcpu& cpu, u32 key, u64 linear, u64 gpa, const interpret::BlockCache& decoded) {
  if (!translatable(cpu, key) || linear == 0) return false;
  View view;
  const u32 mode = mode_of(key, &view);
  if (cache_->find(Key{linear, gpa, mode})) return false;  // run() has refused it for now
  if (cache_->records() > options_.most_records) flush();
  Context context;
  context.bits64 = cpu.in_long64();
  context.fs_flat = context.bits64 || (mode & kFsFlat);
  context.gs_flat = context.bits64 || (mode & kGsFlat);
  context.start = linear;
  context.page = linear & kPageMask;
  context.ring0 = cpu.cpl == 0;
  context.counted = counted_;
  const cpu::TlbEntry* page = cpu::fetch_lookup(cpu, linear);
  if (!page) return false;
  if (!tag_for(mode, &context.tag)) return false;
  context.stable = linear >> 63 && page->global;
  // Programs are loaded anywhere: where the same code has been translated for another place, it is only moved.
  context.movable = context.bits64 && CodeCache::movable_to(linear) && !options_.debug.no_moving;
  if (context.movable) {
    const Block* const known = cache_->movable(gpa, mode);
    const auto moved =
        known ? cache_->move(*known, linear, *memory_lowering_, emitter_, cold_emitter_) : CodeCache::Moved::no;
    if (moved == CodeCache::Moved::full) flush();  // the one to move has gone too: come again
    if (moved != CodeCache::Moved::no) return true;
  }
  const Ready ready{(mode & kSse) != 0, (mode & kAvx) != 0, (mode & kAvx512) != 0,
                    (mode & kX87) != 0 && !options_.debug.no_x87};
  u8 bytes[kMostBytes + kLongest];
  const u64 tail = kPageSize - (gpa & (kPageSize - 1));  // in the first page
  u64 available = std::min<u64>(tail, kMostBytes);
  std::memcpy(bytes, cpu.ram->host(Gpa{gpa}), available);
  Key block_key{linear, gpa, mode};
  if (available < kLongest && !Front::decodes(cpu, {bytes, available}, cpu.code_size())) {
    const cpu::TlbEntry* second = cache_->second_page(linear);
    if (!second) return false;
    block_key.gpa2 = second->gpa;
    if (cache_->find(block_key)) return false;
    context.page2 = context.page + kPageSize;
    context.stable = context.stable && second->global;
    context.movable = false;
    std::memcpy(bytes + tail, cpu.ram->host(Gpa{second->gpa}), kMostBytes);
    available = tail + kMostBytes;
  }
  // What follows an instruction that crosses lies in the second page.
  const u64 there = block_key.gpa2 == kOnePage ? gpa : block_key.gpa2 - tail;
  bool full = false;
  const CodeCache::Starts& starts = cache_->starts((block_key.gpa2 == kOnePage ? gpa : block_key.gpa2) / kPageSize);
  if (!front_->collect(cpu, bytes, available, cpu.code_size(), context, ready, pieces_, &full, [&](u64 at) {
        return ends_at(starts, decoded, key, {linear + at, there + at, mode});
      })) {
    if (full) {
      flush();
      vector_.forget_all();
      arena_.reset();
    }
    TRACE(blocks, "nothing to translate at {:#x}", linear);
    return false;
  }
  if (options_.miscompile.how != Miscompile::How::none) [[unlikely]]
    miscompile_one(options_.miscompile, pieces_, linear);
  Block& block = cache_->append();
  block.key = block_key;
  block.view = view;
  block.stable = context.stable;
  block.count = static_cast<u16>(pieces_.size());
  block.bytes = static_cast<u16>(pieces_.back().at + pieces_.back().insn.length);
  block.code = cache_->keep(std::span<const u8>{bytes, block.bytes});
  block.generation = &cpu.code->generation(gpa / kPageSize);
  if (block.crosses()) block.generation2 = &cpu.code->generation(block.key.gpa2 / kPageSize);
  if (!lowering_)
    lowering_.emplace(cpu, region_->state(), ways_, emitter_, cold_emitter_, thunks_, *memory_lowering_,
                      cache_->sites(), cache_->called(), draft_);
  bool lowered = false;
  for (u32 island_margin : {0u, 40u, 120u}) {
    emitter_.begin(region_->next(), context.movable ? &draft_.fixups : nullptr);
    cold_emitter_.begin(region_->next_cold(), context.movable ? &draft_.cold_fixups : nullptr);
    lowered = lowering_->block(block, context, pieces_, island_margin);
    if (lowered) break;
  }
  if (!lowered || !cache_->mark(block)) {
    TRACE(blocks, "cannot translate {:#x}: {}", linear, lowered ? "its bytes change" : "too long for its jumps");
    cache_->take_back();
    return false;
  }
  if (!region_->add({emitter_.data(), emitter_.size()}, {cold_emitter_.data(), cold_emitter_.size()})) {
    flush();
    return false;
  }
  block.insns = cache_->keep<Block::At>(draft_.insns);
  block.x87 = cache_->keep<Block::Pointer>(draft_.x87);
  block.fixups = cache_->keep<Fixup>(draft_.fixups);
  block.cold_fixups = cache_->keep<Fixup>(draft_.cold_fixups);
  cache_->admit(block);
  if (options_.dump_guest || options_.dump_host) [[unlikely]]
    dump(block);
  cpu.count.blocks_translated++;
  cpu.count.instructions_translated += block.count;
  TRACE(blocks, "translate {:#x} (gpa {:#x}): {} instructions, {} -> {} bytes, mode {:#x}", linear, gpa, block.count,
        block.bytes, block.end - block.entry + (block.cold_end - block.cold), mode);
  return true;
}

// -- Accounts
// The pointers of the last x87 instruction that has run inline before the instruction number `before`.
void Translator::note_x87(const Block& block, u16 before) {
  for (const Block::Pointer& p : block.x87)
    if (p.index < before) {
      cpu_.x87.fip = p.rip;
      cpu_.x87.fcs = cpu_.seg[static_cast<u8>(cpu::Seg::cs)].selector;
      if (p.all) cpu_.x87.fop = p.fop;
      if (p.segment != Block::Pointer::kNoMemory) cpu_.x87.fds = cpu_.seg[p.segment].selector;
    }
}

// cpu.retired and cpu.rip at `site`.
void Translator::sync(const ExitStub& site) {
  cpu_.rip = site.rip;
  // Before a block's ways out its code has stored FIP itself.
  const bool inside = site.kind == ExitStub::Kind::miss || site.kind == ExitStub::Kind::semantic ||
                      site.kind == ExitStub::Kind::vector || site.kind == ExitStub::Kind::step;
  if (inside) note_x87(*site.block, site.before);
  if (!counted_) return;
  const u64 counted = base_left_ - region_->state().left;
  const u64 ahead = site.block && site.kind != ExitStub::Kind::limit && site.kind != ExitStub::Kind::stale
                        ? static_cast<u64>(site.block->count - site.before)
                        : 0;
  cpu_.retired = base_retired_ + counted - ahead;
}

// What cpu.retired says now is the truth.
void Translator::rebase() {
  base_retired_ = cpu_.retired;
  const u64 left = limit_ > cpu_.retired ? limit_ - cpu_.retired : 0;
  base_left_ = region_->state().left = kLeftBias + std::min(left, kLeftBias - 1);
}

bool Translator::must_leave() const {
  return cpu_.attention->load(std::memory_order_relaxed) != 0 || cpu_.timer_deadline != deadline_ ||
         cpu_.interrupt_shadow || (cpu_.sys_flags & cpu::flag::tf) || (cpu_.debug.dr7 & 0xff);
}

Resume Translator::leave(ExitReason left) {
  left_ = left;
  return {0, 0};
}

// -- Calls from translated code
Resume Translator::on_call(void* self, ExitStub* site, u64 vectors_were_live) {
  auto* t = static_cast<Translator*>(self);
  const Resume resume = t->call(*site, vectors_were_live != 0);
  if (resume.target) t->region_->synchronize();
  return resume;
}

Resume Translator::call(ExitStub& site, bool vectors) {
  if (site.kind == ExitStub::Kind::trap) return trap();
  sync(site);
  switch (site.kind) {
    case ExitStub::Kind::miss:
      return miss(site, vectors);
    case ExitStub::Kind::x87:
      cpu::x87_unpark(cpu_);
      return {site.resume, vectors};
    case ExitStub::Kind::semantic:
      if (memory_lowering_->thunk(site, cpu_.in_long64())) return call_string(site, vectors);
      [[fallthrough]];
    case ExitStub::Kind::vector:
      return call_out(site, vectors);
    case ExitStub::Kind::step:
      return leave(ExitReason::one);
    case ExitStub::Kind::pause:
      region_->state().pauses = State::kPauses;
      cpu_.code->step_aside(cpu_);
      return {site.resume, vectors};
    case ExitStub::Kind::link:
      return dispatch(&site);
    case ExitStub::Kind::indirect:
      return indirect(site);
    case ExitStub::Kind::stale:
      return dispatch(nullptr);
    default:
      return leave(ExitReason::boundary);
  }
}

// Fills the slot, or leaves the instruction to the interpreter: device memory, page crossings, faults, code pages.
Resume Translator::miss(ExitStub& site, bool vectors) {
  cpu::Seg seg = cpu::Seg::ss;
  u64 offset;
  switch (site.operand) {
    case Operand::push:
      offset = cpu_.gpr[isa::rsp] - site.size;
      break;
    case Operand::pop:
      offset = cpu_.gpr[isa::rsp];
      break;
    case Operand::linear:  // of flat segments, or with the base in it
      seg = cpu::Seg::ds;
      offset = region_->state().t0;
      break;
    default:
      seg = site.mem.seg;
      offset = cpu::effective_address(cpu_, site.mem, cpu_.rip + site.length);
  }
  u64 linear;
  const cpu::Access access = site.write ? cpu::Access::write : cpu::Access::read;
  if (!cpu::to_linear(cpu_, seg, offset & cpu_.linear_mask, site.size, access, linear)) return leave(ExitReason::one);
  // An entry of another view's rights would stay there (STAC in the middle of a block): --verify would not see it.
  INVARIANT(view_ == view_of(cpu_), "a look-up of view {} where the mode asks for {}", static_cast<int>(view_),
            static_cast<int>(view_of(cpu_)));
  views_->touch(view_, linear);
  // A shared look-up may have begun in the MiB before.
  if ((linear & (MiB - 1)) < SharedLookup::kSpan) views_->touch(view_, linear - SharedLookup::kSpan);
  if (((linear + site.size - 1) ^ linear) >> 12) {
    if (site.write || !gather(site, seg, linear)) return leave(ExitReason::one);
    return {thunks_.gathered, vectors};
  }
  const u32 need = site.write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, site.size, need)) {
    const bool reachable = cpu::probe(cpu_, seg, linear, site.size, access);
    cpu_.debug_hits = 0;
    if (!reachable || !cpu::tlb_lookup(cpu_, linear, site.size, need)) return leave(ExitReason::one);
  }
  return fill(linear) ? Resume{site.resume, vectors} : leave(ExitReason::one);
}

// From the TLB, which has it. False: there is no entry that would say so.
bool Translator::fill(u64 linear) {
  const cpu::TlbEntry& e = cpu_.tlb->half[linear >> 63][linear >> 12 & (cpu::Tlb::kEntries - 1)];
  if (e.addend == 0) return false;  // means "no entry" in the tables
  views_->fill(view_, linear, e.gpa, e.addend, e.global, e.page_shift, e.perm & cpu_.need_read,
               e.perm & cpu_.need_write);
  if (block_by_block_ && e.perm & cpu_.need_write) writable_.push_back({view_, linear});
  return true;
}

// A load over the end of a page of RAM: from a copy of the bytes, which is as much aligned as they are. It is no single
// access anyway.
bool Translator::gather(const ExitStub& site, cpu::Seg seg, u64 linear) {
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & (kPageSize - 1)));
  const u64 second = (linear + first) & cpu_.linear_mask;
  const auto look = [&](u64 at, unsigned size) { return cpu::tlb_lookup(cpu_, at, size, cpu_.need_read); };
  const u8 *low = look(linear, first), *high = look(second, site.size - first);
  if (!low || !high) {
    if (!cpu::probe(cpu_, seg, linear, site.size, cpu::Access::read)) return false;
    low = look(linear, first), high = look(second, site.size - first);
    if (!low || !high) return false;
  }
  // So that the thunk finds them the next time.
  for (const u64 page : {linear, second}) {
    views_->touch(view_, page);
    if (!views_->has(view_, page, false)) fill(page);
  }
  State& s = region_->state();
  u8* to = s.gathered + (linear & 63);
  std::memcpy(to, low, first);
  std::memcpy(to + first, high, site.size - first);
  s.addend = reinterpret_cast<u64>(to) - linear;
  s.hit = site.hit;
  return true;
}

// So that the thunk of a string instruction finds the page of this end the next time.
void Translator::fill_for_string(u64 linear, bool write) {
  const u32 need = write ? cpu_.need_write : cpu_.need_read;
  if (!cpu::tlb_lookup(cpu_, linear, 1, need)) return;
  views_->touch(view_, linear);
  if (!views_->has(view_, linear, write)) fill(linear);
}

Resume Translator::call_string(ExitStub& site, bool vectors) {
  StringForm form;
  const bool known = string_form(site.called->insn, cpu_.in_long64(), &form);
  INVARIANT(known, "a thunk for what is no string instruction at {:#x}", site.rip);
  const u64 from = cpu_.gpr[isa::rsi], to = cpu_.gpr[isa::rdi];
  const bool brief = StringThunks::takes(form, cpu_.gpr[isa::rcx]) && !(cpu_.sys_flags & cpu::flag::df);
  const Resume resume = call_out(site, vectors);
  if (brief && form.reads_source()) fill_for_string(from & cpu_.linear_mask, false);
  if (brief && form.has_destination()) fill_for_string(to & cpu_.linear_mask, !form.compares());
  return resume;
}

Resume Translator::call_out(ExitStub& site, bool vectors) {
  if (block_by_block_ && cpu::find_semantic(site.called->insn)) return leave(ExitReason::one);
  const Outcome outcome = site.kind == ExitStub::Kind::vector
                              ? VectorUnit::execute(cpu_, site.called->insn, site.called->vector)
                              : site.semantic(cpu_, site.called->insn);
  switch (outcome) {
    case Outcome::next:
      cpu_.rip = (cpu_.rip + site.length) & cpu_.linear_mask;
      cpu_.retired++;
      break;
    case Outcome::jumped:
      cpu_.retired++;
      return dispatch(nullptr);
    case Outcome::fault:
      return leave(ExitReason::fault);
    case Outcome::halt:
      cpu_.retired++;
      return leave(ExitReason::halt);
    case Outcome::stop:
      return leave(ExitReason::stop);
    case Outcome::repeat:
      return leave(ExitReason::boundary);
  }
  if (site.block->uses_x87) cpu::x87_unpark(cpu_);
  if (site.ends || must_leave() || cache_->code_changed()) return dispatch(nullptr);
  return {site.resume, vectors};
}

// A near branch to a non-canonical address faults at the branch: it has not happened. The interpreter must not be asked
// to repeat it: CALL has pushed, perhaps over the operand that it read its target from.
Resume Translator::indirect(ExitStub& site) {
  const u64 target = region_->state().t0;
  if (cpu_.in_long64() && !cpu::canonical(target)) {
    cpu_.gpr[isa::rsp] -= static_cast<u64>(static_cast<i64>(site.undo_rsp));
    if (counted_) cpu_.retired--;
    cpu_.rip = site.rip;
    // May fail only if another vCPU takes the stack away meanwhile.
    if (site.undo_rsp < 0 && cpu_.vendor() == isa::Vendor::amd)
      (void)cpu::write_slow(cpu_, cpu::Seg::ss, cpu_.gpr[isa::rsp] - 8, &region_->state().below_rsp, 8);
    (void)cpu_.raise_gp();
    return leave(ExitReason::fault);
  }
  cpu_.rip = target & cpu_.linear_mask;
  return dispatch(nullptr, true);
}

// A signal ended an instruction of a block: the interpreter executes it and raises what is to be raised.
Resume Translator::trap() {
  const u64 pc = region_->state().trap_pc;
  const Block& block = cache_->at_host(pc);
  const u32 at = static_cast<u32>(pc - block.entry);
  u16 index = 0;
  while (index + 1u < block.insns.size() && block.insns[index + 1u].host <= at) index++;
  note_x87(block, index);
  if (counted_) cpu_.retired = base_retired_ + (base_left_ - region_->state().left) - (block.count - index);
  cpu_.rip = block.key.linear + block.insns[index].guest;
  return leave(ExitReason::one);
}

// cpu is exact: goes on with the translation of what is at cpu.rip, or leaves. `same_mode`: a near branch came here.
Resume Translator::dispatch(ExitStub* site, bool same_mode) {
  if (block_by_block_ || must_leave() || cpu_.retired >= limit_) return leave(ExitReason::boundary);
  if ((!site && !same_mode) || cache_->code_changed() || views_->remapped.any()) {
    // After anything but a plain jump the mode may be another.
    const u32 key = interpret::mode_key(cpu_);
    if (!translatable(cpu_, key)) return leave(ExitReason::boundary);
    View view;
    const u32 mode = mode_of(key, &view);
    if (mode != mode_ || view != view_) {
      set_mode(mode, view);
      set_view(view);
    }
    if (user_gate_ && view == View::user && user_gate_->wants_user()) return leave(ExitReason::boundary);
    if (cache_->code_changed()) cache_->check_code();
    if (views_->remapped.any()) cache_->check_mapping(std::exchange(views_->remapped, {}));
  }
  u64 entry = views_->jumps().find(view_, cpu_.rip, tag_);
  Block* block = nullptr;
  if (!entry || site) {
    block = at_rip();
    if (!block) return leave(ExitReason::boundary);
    entry = block->entry;
  }
  if (site && block && block->key.mode == mode_) cache_->link(*site, *block);
  rebase();
  return {entry, 0};
}

// -- Running
void Translator::adopt_thread() {
  if (current == this) return;
  current = this;
  // Guest RSP is in the host's RSP: signals need a stack of their own, which the kernel must not take for the one in
  // use whatever RSP holds.
  static thread_local bool has_stack = false;
  if (!counted_ && !has_timer_) {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0)
      throw HostRefused{"no timer for a vCPU: raise the limit of pending signals (ulimit -i)"};
    has_timer_ = true;
  }
  if (has_stack) return;
  const u64 bytes = std::max<u64>(getauxval(AT_MINSIGSTKSZ), 16 * KiB) + 64 * KiB;
  stack_t stack = {};
  stack.ss_sp = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack.ss_size = bytes;
  stack.ss_flags = static_cast<int>(kAutoDisarm);
  INVARIANT(stack.ss_sp != MAP_FAILED && sigaltstack(&stack, nullptr) == 0, "no stack for signals");
  has_stack = true;
}

interpret::Accelerator::ExitReason Translator::run(Vcpu& cpu, u32 key, u64 limit) {
  if (!translatable(cpu, key)) return ExitReason::nothing;
  if (cache_->code_changed()) cache_->check_code();
  if (views_->remapped.any()) cache_->check_mapping(std::exchange(views_->remapped, {}));
  View view;
  const u32 mode = mode_of(key, &view);
  set_mode(mode, view);
  u64 entry = counted_ ? 0 : views_->jumps().find(view, cpu.rip, tag_);
  if (!entry) {
    Block* block = at_rip();
    if (!block) return ExitReason::nothing;
    if (counted_ && saturated(cpu.retired, block->count) > limit) return ExitReason::one;
    entered_ = block;
    entry = block->entry;
  }
  adopt_thread();
  limit_ = counted_ ? limit : ~u64{0};
  if (!counted_) arm_timer();
  deadline_ = cpu.timer_deadline;
  set_view(view);
  rebase();
  left_ = ExitReason::nothing;
  region_->synchronize();
  reinterpret_cast<EnterThunk>(thunks_.enter)(entry);
  return left_;
}

// Translated code that does not count never looks at the clock: a signal tells it.
void Translator::arm_timer() {
  if (cpu_.timer_deadline == armed_ || cpu_.timer_deadline == ~u64{0}) return;
  const u64 now = cpu_.vm_tsc();
  const u64 ns = cpu_.timer_deadline > now ? cpu_.clock->tsc_to_ns(cpu_.timer_deadline - now) + 1000 : 1000;
  itimerspec spec = {};
  spec.it_value.tv_sec = static_cast<time_t>(std::min<u64>(ns / 1'000'000'000, 3600));
  spec.it_value.tv_nsec = static_cast<long>(ns % 1'000'000'000);
  armed_ = cpu_.timer_deadline;
  INVARIANT(timer_settime(timer_, 0, &spec, nullptr) == 0, "timer_settime of {} ns failed", ns);
}

void Translator::alarm() {
  armed_ = ~u64{0};  // should it be too early, it is set again
  cpu_.attention->fetch_or(cpu::attention::timer, std::memory_order_release);
}

// With an RSP that is not canonical the signal may have come only because the kernel could not return here (resume.h):
// what comes again at once, at an instruction of the guest, is that instruction's own.
bool Translator::redirect_trap(ucontext_t& context) {
  greg_t* const g = context.uc_mcontext.gregs;
  const u64 pc = static_cast<u64>(g[REG_RIP]), rsp = static_cast<u64>(g[REG_RSP]);
  if (!region_->holds(pc)) return false;
  State& s = region_->state();
  const bool guests_own = region_->holds_hot(pc, code_start_) && s.resumed_pc == pc;
  s.resumed_pc = 0;
  if (!cpu::canonical(rsp) && !guests_own) {
    s.resumed_pc = pc;
    resume_by_hand(context, s.resume);
  }
  s.trap_pc = pc;
  s.trap_rsp = rsp;
  g[REG_RIP] = static_cast<greg_t>(thunks_.trap);
  g[REG_RSP] = static_cast<greg_t>(s.host_rsp);
  return true;
}

bool handle_signal(void* context) { return current && current->redirect_trap(*static_cast<ucontext_t*>(context)); }

}  // namespace trapline::engine::translate
