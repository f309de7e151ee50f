// A translator, made and taken apart, and what --verify asks of it.
#include "engine/translate/translator.h"

#include "base/invariant.h"
#include "cpu/code_map.h"
#include "engine/common/code_names.h"
#include "engine/hostcode/host.h"
#include "engine/translate/mode_bits.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

namespace {

constexpr u64 kThunkArena = 4 * MiB;

}  // namespace

std::unique_ptr<Translator> Translator::make(Vcpu& cpu, const VcpuSpace& space, const EngineOptions& options,
                                             std::string* why) {
  if (*why = missing_on_host(); !why->empty()) return nullptr;
  std::unique_ptr<Translator> t{new Translator{cpu, options}};
  t->region_ = Region::make(reinterpret_cast<u64>(&cpu), space.near, kCodeBytes, space.code);
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
  t->emitter_.begin(t->region_->next());
  t->memory_lowering_.emplace(s, *t->views_, t->ways_, options.debug);
  t->front_.emplace(t->vector_, *t->memory_lowering_, options.debug, options.traps);
  t->cache_.emplace(cpu, *t->region_, t->views_->jumps(), !options.debug.no_links);
  ExecutorPolicy& policy = *t;
  t->executor_.emplace(cpu, *t->region_, *t->cache_, t->views_->jumps(), t->views_->remapped, t->now(), policy,
                       options);
  t->executor_->emit_thunks(t->emitter_);
  t->memory_lowering_->emit_thunks(t->emitter_, cpu, t->views_->base(View::kernel), t->executor_->thunks().call);
  INVARIANT(!t->emitter_.overflowed(), "{} bytes of thunks", t->emitter_.size());
  INVARIANT(t->region_->add({t->emitter_.data(), t->emitter_.size()}, {}), "no room for {} bytes of thunks",
            t->emitter_.size());
  name_code(Hva{t->region_->next() - t->region_->used()}, t->region_->used(), Gva{}, cpu.index);
  t->executor_->thunks_are_emitted();
  cpu.tlb_mirror = t->views_.get();
  if (cpu.code) cpu.code->watch();
  return t;
}

Translator::Translator(Vcpu& cpu, const EngineOptions& options)
    : cpu_{cpu}, options_{options}, ways_{host_ways(options.debug)}, arena_{kThunkArena}, vector_{arena_} {}

Translator::~Translator() {
  if (cpu_.tlb_mirror == views_.get()) cpu_.tlb_mirror = nullptr;
}

u32 Translator::threshold() const { return options_.hot_threshold; }

ExitReason Translator::run(Vcpu& cpu, u32 key, u64 limit) {
  if (!translatable(cpu, key)) return ExitReason::nothing;
  executor_->heed_changes();
  set_mode(mode_of(key));
  set_view(now().view);
  return executor_->run(limit);
}

void Translator::flush() {
  cache_->clear();
  modes_.clear();
  for (Turn& t : turns_) t.made.tag = JumpCache::kTags;
  now().tag = JumpCache::kTags;
  region_->reset(executor_->code_start());
  executor_->forget_entered();
}

bool Translator::go_block_by_block() { return executor_->go_block_by_block(); }

void Translator::revoke_writes() {
  for (const Page& p : writable_) views_->forget_write(p.view, p.linear);
  writable_.clear();
}

void Translator::each_reach(bool all, const std::function<void(const Reach&)>& see) {
  namespace p = cpu::perm;
  constexpr u32 kNeed[kViews][2] = {
      {p::kernel_read, p::kernel_write}, {p::kernel_ac_read, p::kernel_ac_write}, {p::user_read, p::user_write}};
  const auto tell = [&](const Views::Entry& e) {
    see({e.linear, Hva{e.linear.raw + e.addend}, kNeed[static_cast<u8>(e.view)][e.write], e.over_end});
  };
  if (all)
    views_->each(tell);
  else
    for (const Page& p : filled_) views_->each_of_page(p.view, p.linear, tell);
  filled_.clear();
}

std::vector<ThunkName> Translator::thunk_names() const {
  const ThunkAddresses& thunks = executor_->thunks();
  std::vector<ThunkName> names{{thunks.call, "call"}, {thunks.load_vec, "load_vec"}, {thunks.indirect, "displaced"}};
  memory_lowering_->each_thunk([&](u64 address, const char* name) { names.push_back({address, name}); });
  return names;
}

std::string Translator::listing() const {
  const Block* const block = executor_->entered();
  return block ? list({cpu_, region_->state(), thunk_names(), cache_->sites()}, *block, true, true) : std::string{};
}

}  // namespace trapline::engine::translate
