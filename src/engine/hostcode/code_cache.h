// The translations of one vCPU: found by key, linked with each other, and given up when what they rely on is no more.
//
// A block relies on its bytes, which CodeMap watches; on the mapping of its page, which is looked at whenever it is
// found by address; and, if it is stable, on a mapping that is looked at when the TLB says that it may have changed.
//
// Owned by the vCPU's thread.
#pragma once

#include <bitset>
#include <cstring>
#include <deque>
#include <memory_resource>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/growing_memory.h"
#include "base/invariant.h"
#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "engine/hostcode/block.h"
#include "engine/hostcode/block_table.h"
#include "engine/hostcode/jump_cache.h"
#include "engine/hostcode/placement.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::hostcode {

class MemoryLowering;

// Mappings of stable code that may have changed: to be looked at before it runs.
struct Remapped {
  bool all = false;
  std::vector<Gva> pages;  // that INVLPG named
  bool any() const { return all || !pages.empty(); }
};

class CodeCache {
 public:
  // Of a field of code that names a linear address.
  struct FieldValue {
    u64 value;
    u8 bytes;
  };
  // `links`: blocks may be linked.
  CodeCache(cpu::Vcpu& cpu, Region& region, JumpCache& jumps, bool links)
      : cpu_{cpu}, region_{region}, jumps_{jumps}, links_{links} {}
  void clear();  // the region is the caller's to reset

  // -- Finding
  // The block at `linear`, which lies at `gpa`; if its first instruction crosses into the next page, only while that is
  // mapped as it was too. Null: there is none.
  Block* find(Gva linear, Gpa gpa, u32 mode) const;
  Block* find(const Key& key) const { return blocks_.find(key); }
  Block* movable(Gpa gpa, u32 mode) const;  // the same code at some other linear address
  const cpu::TlbEntry* second_page(Gva linear) const;
  using Starts = std::bitset<kPageSize>;
  const Starts& starts(u64 frame) const;  // where blocks begin or have begun, in any mode
  const Block& at_host(u64 pc) const;     // whose code is there

  // -- Adding: a block is made by append(), lowered into sites() and called(), copied into the region, and admitted;
  // or taken back while it is the last.
  Block& append() { return all_.emplace_back(); }
  void take_back() { all_.pop_back(); }
  std::pmr::deque<ExitStub>& sites() { return sites_; }
  const std::pmr::deque<ExitStub>& sites() const { return sites_; }
  std::pmr::deque<Called>& called() { return called_; }
  // Enters its bytes into the CodeMap. False: they are other ones by now.
  bool mark(Block& block);
  void admit(Block& block);
  static bool movable_to(Gva linear);
  // Before a movable block for `linear` is added: may take other translations of its frame along to that page, of
  // another place where they have not been used for long.
  void settle(Gva linear, Gpa gpa, u32 mode, const MemoryLowering& memory);
  enum class Moved : u8 { no, yes, full };  // full: the region is
  Moved move(const Block& from, Gva linear, const MemoryLowering& memory, Emitter& hot_copy, Emitter& cold_copy);
  // A copy that stays until clear().
  template <class T>
  std::span<T> keep(std::span<const T> what) {
    if (what.empty()) return {};
    T* to = static_cast<T*>(memory_.allocate(what.size_bytes(), alignof(T)));
    std::memcpy(static_cast<void*>(to), what.data(), what.size_bytes());
    kept_ += what.size_bytes();
    return {to, what.size()};
  }

  // Bytes that describe translations, beside their code: a guest of one-instruction blocks gets little code and many of
  // these.
  u64 records() const;

  // -- Linking
  void link(ExitStub& stub, Block& target);  // if may_link
  // `mode`: in which `from` is left.
  bool may_link(const Block& from, u32 mode, const Block& to) const;

  // -- Checking
  bool code_changed() const { return cpu_.code->epoch() != epoch_; }
  void check_code();
  void check_mapping(const Remapped& what);

 private:
  struct Origin {
    Gpa gpa;
    u32 mode;
    bool operator==(const Origin&) const = default;
  };
  struct OriginHash {
    std::size_t operator()(const Origin& p) const { return (p.gpa.raw ^ u64{p.mode} << 40) * 0x9e3779b97f4a7c15 >> 16; }
  };
  struct PageHash {
    std::size_t operator()(Gva page) const { return page.raw >> 12; }
  };
  using Blocks = std::pmr::vector<Block*>;
  struct Frame {
    using allocator_type = Blocks::allocator_type;
    explicit Frame(const allocator_type& from) : blocks(from) {}
    Blocks blocks;
    Starts starts;
    u32 checked = 0;  // the generation at which all blocks were looked at
  };
  Block* crossing(Gva linear, Gpa gpa, u32 mode) const;
  static Block* used(Block* block, u64 turn) {
    if (block && block->placement) block->placement->used = turn;
    return block;
  }
  void join_placement(Block& block);
  void note_link(const ExitStub& stub, const Block& target);
  bool take_along(Placement& all, Gva page, const MemoryLowering& memory);
  void give_address(Block& block, u64 by, const MemoryLowering& memory);
  void give_field(u64 place, const Fixup& fixup, u64 moved_by, const MemoryLowering& memory);
  static FieldValue value_of(const Fixup& fixup, Gva linear, const MemoryLowering& memory);
  void redirect(u64 from, u64 to);
  void note_stable(Block& block, Gva page);
  void invalidate(Block& block);
  void check_frame(u64 number, Frame& frame);
  void check_page(Gva page, Blocks& list);

  cpu::Vcpu& cpu_;
  Region& region_;
  JumpCache& jumps_;
  const bool links_;
  GrowingMemory memory_;  // what keep() copies
  u64 kept_ = 0;          // bytes of it
  GrowingMemory more_nodes_;
  std::pmr::unsynchronized_pool_resource nodes_{{.max_blocks_per_chunk = 256, .largest_required_pool_block = 4096},
                                                &more_nodes_};  // of the containers below
  BlockTable blocks_{&nodes_}, stale_{&nodes_};
  std::pmr::unordered_map<Origin, Block*, OriginHash> by_origin_{&nodes_};  // movable ones
  std::pmr::unordered_map<u64, Frame> by_frame_{&nodes_};
  std::pmr::unordered_map<Origin, Family, OriginHash> families_{&nodes_};  // by their frame's first byte
  std::pmr::deque<Placement> placements_{&nodes_};
  std::pmr::unordered_map<Gva, Blocks, PageHash> stable_pages_{&nodes_};
  std::pmr::unordered_map<u64, std::pmr::vector<Gva>> stable_regions_{&nodes_};  // those pages, by region of 2 MiB
  bool huge_stable_ = false;                                                     // one of them is part of a larger page
  std::vector<u64> changed_;                                                     // check_code()'s
  std::pmr::deque<Block> all_{&nodes_};                                          // in the order of their host addresses
  std::pmr::deque<ExitStub> sites_{&nodes_};
  std::pmr::deque<Called> called_{&nodes_};
  u64 epoch_ = 0;
};

}  // namespace trapline::engine::hostcode
