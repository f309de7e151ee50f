// The translator: blocks of host code for the guest code that runs often, one cache per vCPU. docs/translator.md.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/accelerator.h"
#include "engine/emit/code_arena.h"
#include "engine/host_space.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/executor.h"
#include "engine/hostcode/front.h"
#include "engine/hostcode/listing.h"
#include "engine/hostcode/lower.h"
#include "engine/hostcode/region.h"
#include "engine/translate/table_lowering.h"
#include "engine/translate/views.h"

namespace trapline::engine::translate {

using namespace hostcode;

// Whoever else may run user code.
struct UserGate {
  virtual ~UserGate() = default;
  // The translator is about to go on with user code at cpu.rip, having come from elsewhere. True: it is to leave.
  virtual bool takes_user() = 0;
  // It goes on with what is no user code, having come from there.
  virtual void left_user() = 0;
};

class Translator final : public Accelerator, hostcode::ExecutorPolicy {
 public:
  // `space`: of kTranslateNeeds, or none. Null: this host cannot do it; `why` says what is missing.
  static std::unique_ptr<Translator> make(cpu::Vcpu& cpu, const VcpuSpace& space, const EngineOptions& options,
                                          std::string* why);
  ~Translator() override;

  ExitReason run(cpu::Vcpu& cpu, u32 key, u64 limit) override;
  bool translate(cpu::Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile) override;
  void flush() override;
  u32 threshold() const override;
  bool go_block_by_block() override;
  void revoke_writes() override;
  void each_reach(bool all, const std::function<void(const Reach&)>& see) override;
  std::string listing() const override;

  // Not owned; null: none.
  void set_user_gate(UserGate* gate) { user_gate_ = gate; }

 private:
  Translator(cpu::Vcpu& cpu, const EngineOptions& options);

  // misses.cpp
  std::optional<u64> miss(const ExitStub& stub) override;
  bool gather(const ExitStub& stub, cpu::Seg seg, Gva linear);
  bool reach_both(const ExitStub& stub, cpu::Seg seg, Gva linear);
  bool fill(Gva linear);
  bool misfill(Gva linear, u64 addend, bool write);

  // thunk_calls.cpp
  void called_for_thunk(const ExitStub& stub, const Registers& before, bool went_on) override;
  void fill_descriptor(u16 selector);
  void fill_string(const ExitStub& stub, const Registers& before);
  void keep_cpuid(const Registers& before);
  void fill_elements(const ExitStub& stub);
  void fill_for_thunk(Gva linear, bool write);
  void fill_for_system(Gva linear);

  // modes.cpp
  bool follow_mode() override;
  bool turn();
  RunningMode mode_of(u32 key) const;
  u8 tag_of(u32 mode) const;
  bool tag_for(u32 mode, u8* tag);
  static View view_of(const cpu::Vcpu& cpu);  // what accesses may see now
  void set_mode(const RunningMode& mode);
  void set_view(View view);
  void check_view() const;
  RunningMode& now() const { return region_->state().now; }

  // make_block.cpp
  struct Source;
  bool make_block(cpu::Vcpu& cpu, u32 key, Gva linear, Gpa gpa, const Profile& profile);
  bool context_for(u32 mode, Gva linear, bool global, Context* out);
  CodeCache::Moved move_known(Gpa gpa, u32 mode, Gva linear);
  bool read(Source& source, Context& context);
  bool collect(const Source& source, const Context& context, const Profile& profile, u32 key);
  void describe(Block& block, const Source& source, const Context& context, View view);
  bool lower(Block& block, const Context& context);
  bool emit(Block& block, const Context& context);
  bool ends_at(const CodeCache::Starts& starts, const Profile& profile, u32 key, const Key& next) const;
  std::vector<ThunkName> thunk_names() const;
  void dump(const Block& block);

  cpu::Vcpu& cpu_;
  const EngineOptions options_;
  const HostWays ways_;
  CodeArena arena_;  // the vector unit's thunks
  VectorUnit vector_;
  std::unique_ptr<Region> region_;
  std::unique_ptr<Views> views_;
  std::optional<CodeCache> cache_;
  Draft draft_;
  Emitter emitter_, cold_emitter_;
  std::optional<TableLowering> memory_lowering_;
  std::optional<Front> front_;
  std::optional<Lowering> lowering_;  // kept for what its lists have allocated
  std::optional<Executor> executor_;
  std::vector<TranslatedInsn> pieces_;
  UserGate* user_gate_ = nullptr;
  struct Page {
    View view;
    Gva linear;
  };
  std::vector<Page> writable_;  // block by block: the pages in write tables
  std::vector<Page> filled_;    // and all that have been filled since each_reach() was called
  u64 dumped_ = 0;              // bytes, by dump()
  std::vector<u32> modes_;      // those that have blocks; a mode's tag is its index
  // 64-bit modes of late, of ring 3, and of others by whether user pages are in reach: what mode_of() looks at, and what it made of that.
  struct Turn {
    u64 cr0, cr4, xcr0;
    u32 need_read, need_write;
    u8 cpl;
    RunningMode made;
  };
  Turn turns_[3] = {};
};

}  // namespace trapline::engine::translate
