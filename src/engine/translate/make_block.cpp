// One block: from the guest's bytes to host code in the cache.
#include "engine/translate/translator.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "engine/translate/mode_bits.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

namespace {

constexpr u64 kMostBytes = 48 * kLongest;  // of a block

void miscompile_one(const Miscompile& miscompile, std::vector<TranslatedInsn>& pieces, Gva linear) {
  for (TranslatedInsn& p : pieces) {
    if (linear.wrapping_add(p.at) != miscompile.address) continue;
    if (miscompile.how == Miscompile::How::value) p.insn.bytes[p.insn.length - 1u] ^= 1;
    if (miscompile.how == Miscompile::How::place) p.insn.mem.disp += 8;
    if (miscompile.how == Miscompile::How::drop) p.treatment = Treatment::nothing;
  }
}

}  // namespace

// What make_block() reads: the guest's bytes from the block's first on, over the end of a page if an instruction crosses.
struct Translator::Source {
  u8 bytes[kMostBytes + kLongest];
  u64 available;
  Key key;
  Gpa there;  // the address of bytes[0], or where it would be in the page of what follows
};

bool Translator::make_block(Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) {
  if (!translatable(cpu, key) || linear == Gva{}) return false;
  const auto [mode, tag, view] = mode_of(key);
  if (cache_->find(Key{linear, gpa, mode})) return false;  // run() has refused it for now
  if (cache_->records() > options_.most_records) flush();
  const cpu::TlbEntry* page = cpu::fetch_lookup(cpu, linear);
  Context context;
  if (!page || !context_for(mode, linear, page->global, &context)) return false;
  if (context.movable) {
    cache_->settle(linear, gpa, mode, *memory_lowering_);
    if (cache_->find(Key{linear, gpa, mode})) return true;
    if (const CodeCache::Moved moved = move_known(gpa, mode, linear); moved != CodeCache::Moved::no) return true;
  }
  Source source;
  source.key = {linear, gpa, mode};
  if (!read(source, context)) return false;
  if (!collect(source, context, profile, key)) {
    TRACE(blocks, "nothing to translate at {}", linear);
    return false;
  }
  if (options_.miscompile.how != Miscompile::How::none) [[unlikely]]
    miscompile_one(options_.miscompile, pieces_, linear);
  Block& block = cache_->append();
  describe(block, source, context, view);
  return emit(block, context);
}

bool Translator::context_for(u32 mode, Gva linear, bool global, Context* out) {
  Context& context = *out;
  context.bits64 = cpu_.in_long64();
  context.fs_flat = context.bits64 || (mode & kFsFlat);
  context.gs_flat = context.bits64 || (mode & kGsFlat);
  context.start = linear;
  context.page = linear.page();
  context.ring0 = cpu_.cpl == 0;
  context.fsgsbase = mode & kFsGsBase;
  context.counted = options_.count_instructions;
  context.stable = linear.raw >> 63 && global;
  context.movable = context.bits64 && CodeCache::movable_to(linear) && !options_.debug.no_moving;
  context.view = static_cast<View>(mode >> kViewShift & 3);
  if (!tag_for(mode, &context.tag)) return false;
  // Where AC is 1, CLAC still looks whether SMAP is there.
  const bool turns = context.ring0 && (context.view == View::kernel || cpu_.cr4 & cpu::cr4::smap);
  if (!turns) return true;
  RunningMode& turned = context.turned;
  turned.view = context.view == View::kernel ? View::kernel_ac : View::kernel;
  turned.mode = (mode & ~(u32{3} << kViewShift)) | static_cast<u32>(turned.view) << kViewShift;
  return tag_for(turned.mode, &turned.tag);
}

// Programs are loaded anywhere: where the same code has been translated for another place, it is only moved.
CodeCache::Moved Translator::move_known(Gpa gpa, u32 mode, Gva linear) {
  const Block* const known = cache_->movable(gpa, mode);
  if (!known) return CodeCache::Moved::no;
  const CodeCache::Moved moved = cache_->move(*known, linear, *memory_lowering_, emitter_, cold_emitter_);
  if (moved == CodeCache::Moved::full) flush();  // the one to move has gone too: come again
  return moved;
}

// False: the first instruction crosses into a page that is not there, or is translated already.
bool Translator::read(Source& source, Context& context) {
  const auto [linear, gpa, mode] = std::tuple{source.key.linear, source.key.gpa, source.key.mode};
  const u64 tail = kPageSize - gpa.page_offset();  // in the first page
  source.available = std::min<u64>(tail, kMostBytes);
  source.there = gpa;
  std::memcpy(source.bytes, cpu_.ram->host(gpa), source.available);
  if (source.available >= kLongest || Front::decodes(cpu_, {source.bytes, source.available}, cpu_.code_size()))
    return true;
  const cpu::TlbEntry* second = cache_->second_page(linear);
  if (!second) return false;
  source.key.gpa2 = second->gpa;
  if (cache_->find(source.key)) return false;
  context.page2 = context.page.wrapping_add(kPageSize);
  context.stable = context.stable && second->global;
  context.movable = false;
  std::memcpy(source.bytes + tail, cpu_.ram->host(second->gpa), kMostBytes);
  source.available = tail + kMostBytes;
  source.there =
      source.key.gpa2.wrapping_add(0 - tail);  // what follows an instruction that crosses lies in the second page
  return true;
}

// Into pieces_. False: there is nothing to translate, or the vector unit was full and all is gone.
bool Translator::collect(const Source& source, const Context& context, const Profile& profile, u32 key) {
  const u32 mode = source.key.mode;
  const Ready ready{(mode & kSse) != 0, (mode & kAvx) != 0, (mode & kAvx512) != 0,
                    (mode & kX87) != 0 && !options_.debug.no_x87};
  const u64 frame = (source.key.gpa2 == kOnePage ? source.key.gpa : source.key.gpa2).frame();
  const CodeCache::Starts& starts = cache_->starts(frame);
  bool full = false;
  const bool any = front_->collect(
      cpu_, source.bytes, source.available, cpu_.code_size(), context, ready, pieces_, &full, [&](u64 at) {
        return ends_at(starts, profile, key, {source.key.linear.wrapping_add(at), source.there.wrapping_add(at), mode});
      });
  if (!any && full) {
    flush();
    vector_.forget_all();
    arena_.reset();
  }
  return any;
}

void Translator::describe(Block& block, const Source& source, const Context& context, View view) {
  block.key = source.key;
  block.view = view;
  block.turned = context.turned.mode;
  block.stable = context.stable;
  block.count = static_cast<u16>(pieces_.size());
  block.bytes = static_cast<u16>(pieces_.back().at + pieces_.back().insn.length);
  INVARIANT(block.count <= DebugOptions::kMostInsns && block.bytes <= source.available,
            "the block of {} has {} instructions in {} of {} bytes", block.key.linear, block.count, block.bytes,
            source.available);
  // Which frames it relies on, and whose writers it hears of.
  INVARIANT(block.crosses() == (block.key.gpa.page_offset() + block.bytes > kPageSize),
            "the block of {} with {} bytes lies in another number of pages", block.key.linear, block.bytes);
  block.code = cache_->keep(std::span<const u8>{source.bytes, block.bytes});
  block.generation = &cpu_.code->generation(block.key.gpa.frame());
  if (block.crosses()) block.generation2 = &cpu_.code->generation(block.key.gpa2.frame());
}

// With more islands each time that a jump comes out of reach.
bool Translator::lower(Block& block, const Context& context) {
  if (!lowering_)
    lowering_.emplace(cpu_, region_->state(), ways_, emitter_, cold_emitter_, executor_->thunks(), *memory_lowering_,
                      cache_->sites(), cache_->called(), draft_);
  for (const u32 island_margin : {0u, 40u, 120u}) {
    emitter_.begin(region_->next(), context.movable ? &draft_.fixups : nullptr);
    cold_emitter_.begin(region_->next_cold(), context.movable ? &draft_.cold_fixups : nullptr);
    if (lowering_->block(block, context, pieces_, island_margin)) return true;
  }
  return false;
}

bool Translator::emit(Block& block, const Context& context) {
  const bool lowered = lower(block, context);
  if (!lowered || !cache_->mark(block)) {
    TRACE(blocks, "cannot translate {}: {}", block.key.linear, lowered ? "its bytes change" : "too long for its jumps");
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
  cpu_.count.blocks_translated++;
  cpu_.count.instructions_translated += block.count;
  cpu_.count.host_code_bytes += block.end - block.entry + (block.cold_end - block.cold);
  TRACE(blocks, "translate {} (gpa {}): {} instructions, {} -> {} bytes, mode {:#x}", block.key.linear, block.key.gpa,
        block.count, block.bytes, block.end - block.entry + (block.cold_end - block.cold), block.key.mode);
  return true;
}

// What is translated already is not translated again: much code is limited by how fast it can be fetched. Behind a
// conditional branch a block goes on only if it was mostly not taken so far.
bool Translator::ends_at(const CodeCache::Starts& starts, const Profile& profile, u32 key, const Key& next) const {
  if (executor_->block_by_block()) return false;                         // the longer a block, the more is compared
  if (pieces_.back().insn.mnemonic == ZYDIS_MNEMONIC_STI) return false;  // its shadow
  if (starts.test(next.gpa.page_offset()) && cache_->find(next)) return true;
  if (pieces_.back().treatment != Treatment::branch) return false;
  return !profile.often(next.gpa, key);
}

bool Translator::translate(Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) {
  if (!options_.count_instructions) return make_block(cpu, key, linear, gpa, profile);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const bool made = make_block(cpu, key, linear, gpa, profile);
  cpu.count.translating_ns += static_cast<u64>(std::chrono::nanoseconds{Clock::now() - start}.count());
  return made;
}

// --dump: once, as it is before links are made.
void Translator::dump(const Block& block) {
  constexpr u64 kMost = 256 * MiB;
  if (dumped_ >= kMost) return;
  trace::emit(trace::blocks,
              fmt::format("dump {} (gpa {}), mode {:#x}: {} instructions, {} -> {} bytes", block.key.linear,
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

}  // namespace trapline::engine::translate
