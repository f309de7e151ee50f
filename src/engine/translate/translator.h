// The translator: blocks of host code for the guest code that runs often, one cache per vCPU. docs/translator.md.
#pragma once

#include <bitset>
#include <cstring>
#include <deque>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/common/code_arena.h"
#include "engine/common/host_space.h"
#include "engine/interpret/accelerator.h"
#include "engine/translate/front.h"
#include "engine/translate/lower.h"
#include "engine/translate/region.h"
#include "engine/translate/thunks.h"
#include "engine/translate/views.h"

namespace trapline::engine::translate {

class Translator final : public interpret::Accelerator {
 public:
  // `space`: of kTranslateNeeds, or none. Null: this host cannot do it; `why` says what is missing.
  static std::unique_ptr<Translator> make(cpu::Vcpu& cpu, const VcpuSpace& space, std::string* why);
  ~Translator() override;

  Left run(cpu::Vcpu& cpu, u32 key, u64 limit) override;
  bool translate(cpu::Vcpu& cpu, u32 key, u64 linear, u64 gpa, const interpret::BlockCache& decoded) override;
  void flush() override;
  u32 threshold() const override;
  bool go_block_by_block() override;
  void revoke_writes() override;
  std::string listing() const override;

  void alarm();  // from the timer's signal handler
  // For the signal handler: async-signal-safe. A fault in translated code goes on at trap(); false: it was not there.
  bool redirect_trap(ucontext_t& context);

 private:
  explicit Translator(cpu::Vcpu& cpu);
  static Resume on_call(void* self, Site* site, u64 vectors_were_live);
  Resume call(Site& site, bool vectors);
  Resume miss(Site& site, bool vectors);
  bool gather(const Site& site, cpu::Seg seg, u64 linear);
  bool fill(u64 linear);
  Resume call_out(Site& site, bool vectors);
  Resume call_string(Site& site, bool vectors);
  void fill_for_string(u64 linear, bool write);
  Resume indirect(Site& site);
  Resume trap();
  Resume leave(Left left);
  Resume dispatch(Site* link, bool same_mode = false);
  void sync(const Site& site);
  void note_x87(const Block& block, u16 before);
  void redirect(u64 from, u64 to);
  void rebase();
  bool must_leave() const;

  u32 mode_of(u32 key, View* view) const;
  u8 tag_of(u32 mode) const;
  bool tag_for(u32 mode, u8* tag);
  Block* at_rip();
  Block* crossing(u64 linear, u64 gpa);
  const cpu::TlbEntry* second_page(u64 linear);
  static bool may_link(const Block& from, const Block& to);
  void link(Site& site, Block& target);
  struct Frame;
  void check_code();
  void check_frame(u64 number, Frame& frame);
  void check_mapping();
  void check_page(u64 page, std::vector<Block*>& list);
  void note_stable(Block& block, u64 page);
  void invalidate(Block& block);
  static View view_of(const cpu::Vcpu& cpu);  // what accesses may see now
  void set_mode(u32 mode, View view);
  void set_view(View view);
  void adopt_thread();
  void arm_timer();
  bool mark(Block& block);
  void admit(Block& block);
  bool make_block(cpu::Vcpu& cpu, u32 key, u64 linear, u64 gpa, const interpret::BlockCache& decoded);
  using Starts = std::bitset<kPageSize>;
  bool ends_at(const Starts& starts, const interpret::BlockCache& decoded, u32 key, const Key& next) const;
  static bool movable_to(u64 linear);
  bool move(const Block& from, u64 linear);
  void dump(const Block& block);

  cpu::Vcpu& cpu_;
  CodeArena arena_;  // the vector unit's thunks
  VectorUnit vector_;
  Front front_;
  std::unique_ptr<Region> region_;
  std::unique_ptr<Views> views_;
  // A copy that stays until flush().
  template <class T>
  std::span<const T> keep(std::span<const T> what) {
    if (what.empty()) return {};
    T* to = static_cast<T*>(memory_.allocate(what.size_bytes(), alignof(T)));
    std::memcpy(static_cast<void*>(to), what.data(), what.size_bytes());
    kept_ += what.size_bytes();
    return {to, what.size()};
  }

  u64 records() const;  // bytes that options.h bounds

  std::pmr::monotonic_buffer_resource memory_{64 * KiB};
  u64 kept_ = 0;  // bytes of it
  Draft draft_;
  Emitter emitter_, cold_emitter_;
  std::optional<Lowering> lowering_;  // kept for what its lists have allocated
  ThunkAddresses thunks_;
  Site trap_site_;
  u64 code_start_ = 0;  // behind the thunks
  BlockTable blocks_, stale_;
  struct Place {
    u64 gpa;
    u32 mode;
    bool operator==(const Place&) const = default;
  };
  struct PlaceHash {
    std::size_t operator()(const Place& p) const { return (p.gpa ^ u64{p.mode} << 40) * 0x9e3779b97f4a7c15 >> 16; }
  };
  std::unordered_map<Place, Block*, PlaceHash> by_place_;  // movable ones
  struct Frame {
    std::vector<Block*> blocks;
    Starts starts;    // where blocks begin or have begun, in any mode
    u32 checked = 0;  // the generation at which all blocks were looked at
  };
  std::unordered_map<u64, Frame> by_frame_;
  std::unordered_map<u64, std::vector<Block*>> stable_pages_;  // by linear page
  std::unordered_map<u64, std::vector<u64>> stable_regions_;   // those pages, by region of 2 MiB
  bool huge_stable_ = false;                                   // one of them is part of a larger page
  std::vector<u64> changed_;                                   // check_code()'s
  std::deque<Block> all_;                                      // in the order of their host addresses
  std::deque<Site> sites_;
  std::deque<Called> called_;
  std::vector<Piece> pieces_;
  u64 epoch_ = 0;
  u64 base_retired_ = 0;  // cpu.retired when state.left was `base_left_`
  u64 base_left_ = 0;
  u64 limit_ = 0;
  bool counted_ = true;
  bool block_by_block_ = false;  // for --verify: nothing leads from one block to another
  struct Page {
    View view;
    u64 linear;
  };
  std::vector<Page> writable_;      // block by block: the pages in write tables
  const Block* entered_ = nullptr;  // block by block
  u64 dumped_ = 0;                  // bytes, by dump()
  void* timer_ = nullptr;           // timer_t; sets attention::timer when cpu.timer_deadline has come
  bool has_timer_ = false;
  u64 armed_ = ~u64{0};  // the deadline it is set to
  u64 deadline_ = 0;
  u32 mode_ = 0;
  std::vector<u32> modes_;  // those that have blocks; a mode's tag is its index
  u8 tag_ = Views::kTags;   // of `mode_`; kTags: it has none
  View view_ = View::kernel;
  Left left_ = Left::nothing;
};

// Installed with the vector unit's signal handlers: true when the signal came from translated code and was dealt with.
bool handle_signal(void* ucontext);

}  // namespace trapline::engine::translate
