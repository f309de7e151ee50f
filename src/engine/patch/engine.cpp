#include "engine/patch/engine.h"

#include <cpuid.h>
#include <fmt/format.h>

#include <utility>

#include "base/host_refused.h"
#include "cage/pool.h"
#include "engine/hostcode/host.h"
#include "engine/interpret/interpreter.h"
#include "engine/patch/direct.h"
#include "engine/patch/vectors.h"
#include "engine/translate/translator.h"
#include "engine/verify/lockstep.h"

namespace trapline::engine {

namespace patch {

namespace {

HostLacks host_lacks(const cpu::Vcpu& cpu, bool cpuid_faults, bool repeatable) {
  u32 low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  HostLacks host;
  host.vendor = cpu.vendor();
  host.cpuid_faults = cpuid_faults;
  host.aux_offered = !cpu.cpuid || cpu.cpuid->has(cpu::Feature::rdtscp) || cpu.cpuid->has(cpu::Feature::rdpid);
  host.xcr0_same = low == host_components() && high == 0;
  host.repeatable = repeatable;
  return host;
}

// Measured on two kinds of hosts; docs/cages.md.
Tiers::Costs costs(u64 tsc_khz) {
  const u64 us = tsc_khz ? tsc_khz / 1000 : 2000;
  return {2000 * us, 20'000 * us, us, 10'000 * us, 500 * us, 80'000 * us, 60'000 * us, 20 * us};
}

class Patch final : public Accelerator, translate::UserGate {
 public:
  // repeatable: what cages do is to be done again by somebody else (--verify).
  Patch(cpu::Vcpu& cpu, std::unique_ptr<translate::Translator> translator, const CageShare& share, bool always,
        bool repeatable)
      : cpu_{cpu},
        translator_{std::move(translator)},
        cages_{cpu,
               share.pool->share(share.part, share.parts),
               host_lacks(cpu, share.pool->cpuid_faults(), repeatable),
               share.pool->copies(share.part, share.parts),
               share.pool->copies_offset(share.part, share.parts),
               share.pool->most_mappings()},
        direct_{cpu, cages_, Tiers{costs(cpu.clock ? cpu.clock->tsc_khz : 0), always}, share.parts} {
    translator_->set_user_gate(this);
  }

  ExitReason run(cpu::Vcpu& cpu, u32 key, u64 limit) override {
    if (cpu.cpl != 3) direct_.left_user();
    uncounted_ = takes(cpu);
    if (uncounted_) return direct_.run();
    const ExitReason why = translator_->run(cpu, key, limit);
    if (cpu.cpl != 3) direct_.left_user();
    return why;
  }
  bool translate(cpu::Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) override {
    return translator_->translate(cpu, key, linear, gpa, profile);
  }
  void flush() override { translator_->flush(); }
  u32 threshold() const override { return translator_->threshold(); }
  bool takes(const cpu::Vcpu&) override { return cages_.room() != 0 && direct_.takes(); }
  bool go_block_by_block() override { return translator_->go_block_by_block(); }
  bool uncounted() const override { return uncounted_; }
  void revoke_writes() override {
    translator_->revoke_writes();
    cages_.revoke_writes();
  }
  void each_reach(bool all, const std::function<void(const Reach&)>& see) override {
    translator_->each_reach(all, see);
  }
  std::string listing() const override {
    return uncounted_ ? "  (it ran as it is, in a cage)\n" : translator_->listing();
  }

 private:
  bool takes_user() override { return takes(cpu_); }
  void left_user() override { direct_.left_user(); }

  cpu::Vcpu& cpu_;
  std::unique_ptr<translate::Translator> translator_;
  Cages cages_;
  Direct direct_;
  bool uncounted_ = false;
};

}  // namespace

}  // namespace patch

std::string patch_lacks() {
  if (std::string what = translate_lacks(); !what.empty()) return what;
  if (patch::host_components() == 0) return "XSAVE";
  static const std::string what = cage::missing_on_host();
  return what;
}

std::unique_ptr<Engine> make_patch(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space,
                                   const EngineOptions& options) {
  if (!options.cages.pool) return make_translate(cpu, arena, space, options);
  std::string why;
  auto translator = translate::Translator::make(cpu, space, options, &why);
  if (!translator) throw HostRefused{fmt::format("engine patch: this host lacks {}: use --engine interpret", why)};
  const bool verify = options.on_difference != nullptr;  // of what may run directly, all does
  auto patch = std::make_unique<patch::Patch>(cpu, std::move(translator), options.cages,
                                              options.debug.direct_always || verify, verify);
  return make_accelerated(cpu, arena, verify::checked(cpu, std::move(patch), options.on_difference));
}

}  // namespace trapline::engine
