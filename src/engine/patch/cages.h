// The cages of one vCPU: which guest address space each holds, and what the guest's TLB flushes mean for them. A mapping
// lives exactly as long as a TLB entry may. Intel SDM Vol. 3A 4.10.4.
#pragma once

#include <memory>
#include <unordered_set>
#include <vector>

#include "cpu/mmu.h"
#include "engine/patch/address_space.h"

namespace trapline::engine::patch {

class Cages final : public cpu::TlbMirror {
 public:
  // Becomes cpu.tlb_mirror, in front of the one that is there.
  Cages(cpu::Vcpu& cpu, std::vector<std::unique_ptr<cage::Cage>> cages, const HostLacks& host, std::span<u8> copies,
        u64 copies_offset, u64 most_mappings);
  ~Cages() override;

  // The address space of the vCPU's CR3, ready to run: up to date. Null: it has no cage.
  AddressSpace* current();
  // The same; gives it the cage that has been idle for longest if need be. Null: there is none (all died).
  AddressSpace* make_current();
  void drop_current();
  // Its program has something of its own where the stub is: it gets a cage that has it elsewhere, the next time.
  void make_way();
  // Code that cages execute has been overwritten: takes it out of them.
  void check_code();
  bool rewritten(Gpa page) const { return frames_.rewritten(page); }
  bool holds_code(Gpa page) const { return frames_.holds_code(page); }
  // What was decoded of it goes, wherever: it may be written to.
  void give_up(Gpa page);
  // No cage has write permission; the next write of each page is a fault.
  void revoke_writes();
  std::size_t room() const { return spaces_.size() + free_.size(); }

  void flushed_all() override;
  void flushed_nonglobal() override { inner_->flushed_nonglobal(); }
  void flushed_context(u16 pcid) override;
  void flushed_all_contexts() override;
  void flushed_page(Gva linear) override;
  void switched() override { inner_->switched(); }
  void dropped_write(Gpa page) override;
  void dropped_all_write() override;

 private:
  struct Slot {
    std::unique_ptr<AddressSpace> space;
    u16 pcid = 0;
    u64 last_use = 0;
  };
  Slot* find(Gpa root);
  Gpa root() const { return Gpa{cpu_.cr3 & 0x000ffffffffff000}; }
  u16 pcid() const { return cpu_.cr4 & cpu::cr4::pcide ? cpu_.cr3 & 0xfff : 0; }
  void bury_dead();
  void evict(std::vector<Slot>::iterator slot);
  std::unique_ptr<cage::Cage> take(u64 stub);
  AddressSpace* now_runs(AddressSpace& space);

  cpu::Vcpu& cpu_;
  cpu::TlbMirror* inner_;
  CodeFrames frames_;
  u64 most_mappings_;
  std::vector<Slot> spaces_;
  std::vector<std::unique_ptr<cage::Cage>> free_;
  std::unordered_set<u64> elsewhere_;  // top-level tables whose programs are in the way of the usual stub
  u64 uses_ = 0;
  cage::Cage* last_ = nullptr;  // ran last, and may be polling
};

}  // namespace trapline::engine::patch
