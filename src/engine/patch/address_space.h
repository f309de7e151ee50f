// What one cage has mapped of one guest address space: a TLB whose entries are host mappings. docs/cages.md.
#pragma once

#include <bitset>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "cage/cage.h"
#include "cpu/vcpu.h"
#include "engine/patch/code_frames.h"
#include "engine/patch/user_pages.h"

namespace trapline::engine::patch {

class AddressSpace {
 public:
  // root: the top-level table. `most_mappings`: what the host allows a process, with some to spare.
  AddressSpace(std::unique_ptr<cage::Cage> cage, CodeFrames& frames, Gpa root, u64 most_mappings)
      : cage_{std::move(cage)}, frames_{frames}, root_{root}, most_mappings_{most_mappings} {}

  cage::Cage& cage() { return *cage_; }
  std::unique_ptr<cage::Cage> release() { return std::move(cage_); }
  Gpa root() const { return root_; }

  // The guest's tables allow the access to `linear` (A, and for a write D, are set): queues mappings for the page and
  // for neighbours. False: the page may not be in a cage; the interpreter is to execute the instruction.
  enum class Want : u8 { read, write, fetch };
  bool map_around(const cpu::Vcpu& cpu, Gva linear, Want want);
  // All that the guest's tables have and the program has used, up to a bound: for a cage that begins to hold it.
  void map_present(const cpu::Vcpu& cpu);
  // A fetch from here has been refused.
  bool refused(Gva linear) const { return !refused_.empty() && refused_.count(linear.frame()); }

  // The first read of a page that stands for nothing yet: one frame of zeros is mapped in many places. A write follows
  // soon, and to take a mapping back costs more than to execute one instruction.
  bool put_off(const cpu::Vcpu& cpu, Gva linear);

  void forget_refusals() { refused_.clear(); }
  // The program has something of its own where the stub is, or less than a GiB from there.
  bool stub_in_the_way() const { return stub_in_the_way_; }

  // -- When these return the cage has proved that what was stale is gone, or is dead (and has nothing).
  // Compares all that is mapped with the guest's tables.
  void revalidate(const cpu::Vcpu& cpu);
  // The same of what is around one address.
  void revalidate_around(const cpu::Vcpu& cpu, Gva linear);
  // Nothing of this frame may be written to, or be executed.
  void drop_write(Gpa page);
  void drop_execute(Gpa page);
  void drop_all_write();
  void clear();

  // Since the last call everything that was mapped has gone from the guest's tables: the program has ended, and another
  // begins there.
  bool take_ended() { return std::exchange(ended_, false); }
  // What flushes have cost since the last call.
  u64 take_flush_ticks() { return std::exchange(flush_ticks_, 0); }
  std::size_t pages() const { return pages_; }

 private:
  enum : u64 { mapped = 1, write = 2, execute = 4, copy = 8, rights = 15 };
  static constexpr unsigned kPages = 512;
  static Gpa page_of(u64 entry) { return Gpa{entry & ~u64{rights}}; }
  struct Region {
    u64 page[kPages] = {};       // gpa | rights; 0: not mapped
    std::bitset<kPages> in_use;  // which are
  };
  // What is under way of it: pages that follow each other in both spaces and become alike are one order.
  struct Run {
    Gva address;
    u64 length = 0, entry = 0;
    bool lower = false;
  };
  // Asks `wanted` for each page from `first` to `last`, and queues what makes the cage agree.
  template <class Wanted>
  void reconcile(Gva base, Region& region, unsigned first, unsigned last, Wanted wanted);
  // The same for each page that is mapped.
  template <class Wanted>
  void review(Gva base, Region& region, Wanted wanted);
  static constexpr unsigned kAround = 64;  // pages, aligned, that a fault looks at
  static u64 along(std::span<const UserPage, kAround> pages, unsigned asked, bool fetch);
  void become(Gva base, Region& region, unsigned index, u64 then);
  void order(Gva address, u64 length, u64 entry, bool lower);
  void finish();
  void note_use(Gva linear);
  u64 entry_of(Gva linear) const;
  bool patched(Gpa page) const;
  bool may_write(const UserPage& page) const;
  bool runs(Gva linear, const UserPage& page);
  bool border_ok(Gva linear, Gpa gpa) const;
  void prove();
  void prove_cheaply();

  std::unique_ptr<cage::Cage> cage_;
  CodeFrames& frames_;
  Gpa root_;
  u64 most_mappings_;
  std::map<u64, std::unique_ptr<Region>> regions_;  // by address / 2 MiB
  Run run_;
  std::unordered_set<u64> refused_;    // page numbers
  std::unordered_map<u64, u32> read_;  // numbers of frames that reads have asked for, and how often
  std::unordered_set<u64> put_off_;    // page numbers
  std::size_t pages_ = 0;
  bool ended_ = false, stub_in_the_way_ = false;
  u64 flush_ticks_ = 0, order_ticks_ = 20'000;  // of an order among others, on average
  u64 mappings_ = 0;                            // made since `clear`: at least as many as the host counts
};

}  // namespace trapline::engine::patch
