// The translator: blocks of host code for the guest code that runs often, one cache per vCPU. docs/translator.md.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/accelerator.h"
#include "engine/common/host_space.h"
#include "engine/hostcode/code_arena.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/deadline_timer.h"
#include "engine/hostcode/front.h"
#include "engine/hostcode/listing.h"
#include "engine/hostcode/lower.h"
#include "engine/hostcode/region.h"
#include "engine/hostcode/thunks.h"
#include "engine/translate/table_lowering.h"
#include "engine/translate/views.h"

namespace trapline::engine::translate {

using namespace hostcode;

// Whoever else may run user code.
struct UserGate {
  virtual ~UserGate() = default;
  // The translator is about to go on with user code at cpu.rip, having come from elsewhere. True: it is to leave.
  virtual bool wants_user() = 0;
  // It goes on with what is no user code, having come from there.
  virtual void left_user() = 0;
};

class Translator final : public Accelerator {
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

  void alarm();  // from the timer's signal handler
  // For the signal handler: async-signal-safe. A fault in translated code goes on at trap(); false: it was not there.
  bool redirect_trap(ucontext_t& context);

 private:
  Translator(cpu::Vcpu& cpu, const EngineOptions& options);
  static Resume on_call(void* self, ExitStub* site, u64 vectors_were_live);
  Resume call(ExitStub& site, bool vectors);
  Resume miss(ExitStub& site, bool vectors);
  bool gather(const ExitStub& site, cpu::Seg seg, u64 linear);
  bool reach_both(const ExitStub& site, cpu::Seg seg, u64 linear);
  bool fill(u64 linear);
  bool misfill(u64 linear, u64 addend, bool write);
  Resume call_out(ExitStub& site, bool vectors);
  Resume call_string(ExitStub& site, bool vectors);
  void fill_for_string(u64 linear, bool write);
  Resume indirect(ExitStub& site);
  Resume trap();
  void count_trapped(u64 gpa);
  Resume leave(ExitReason left);
  Resume dispatch(ExitStub* link, bool same_mode = false);
  void sync(const ExitStub& site);
  void note_x87(const Block& block, u16 before);
  void rebase();
  bool must_leave() const;

  u32 mode_of(u32 key, View* view) const;
  u8 tag_of(u32 mode) const;
  bool tag_for(u32 mode, u8* tag);
  Block* at_rip();
  static View view_of(const cpu::Vcpu& cpu);  // what accesses may see now
  void set_mode(u32 mode, View view);
  bool turn();
  void set_view(View view);
  static void hear_signals(bool timer);
  void adopt_thread();
  void leave_thread();

  // make_block.cpp
  struct Source;
  bool make_block(cpu::Vcpu& cpu, u32 key, u64 linear, u64 gpa, const Profile& profile);
  bool context_for(u32 mode, u64 linear, bool global, Context* out);
  CodeCache::Moved move_known(u64 gpa, u32 mode, u64 linear);
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
  ThunkAddresses thunks_;
  ExitStub trap_site_;
  u64 code_start_ = 0;  // behind the thunks
  std::vector<TranslatedInsn> pieces_;
  u64 base_retired_ = 0;  // cpu.retired when state.left was `base_left_`
  u64 base_left_ = 0;
  u64 limit_ = 0;
  UserGate* user_gate_ = nullptr;
  const bool counted_;
  bool block_by_block_ = false;  // for --verify: nothing leads from one block to another
  struct Page {
    View view;
    u64 linear;
  };
  std::vector<Page> writable_;      // block by block: the pages in write tables
  std::vector<Page> filled_;        // and all that have been filled since each_reach() was called
  const Block* entered_ = nullptr;  // block by block
  u64 dumped_ = 0;                  // bytes, by dump()
  DeadlineTimer timer_;             // sets attention::timer when cpu.timer_deadline has come
  u64 deadline_ = 0;
  u32 mode_ = 0;
  std::vector<u32> modes_;     // those that have blocks; a mode's tag is its index
  u8 tag_ = JumpCache::kTags;  // of `mode_`; kTags: it has none
  View view_ = View::kernel;
  // 64-bit modes of late, by ring 3 or not: what mode_of() looks at, and what it made of that.
  struct Turn {
    u64 cr0, cr4, xcr0;
    u32 need_read, need_write;
    u8 cpl, tag = JumpCache::kTags;
    View view;
    u32 mode;
  };
  Turn turns_[2] = {};
  ExitReason left_ = ExitReason::nothing;
};

// Installed with the vector unit's signal handlers: true when the signal came from translated code and was dealt with.
bool handle_signal(void* ucontext);

}  // namespace trapline::engine::translate
