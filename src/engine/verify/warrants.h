// What a guest's page tables have allowed and no flush has ended since: whatever translated code reaches without asking
// the MMU must be among it. Lockstep sees a wrong entry only when it is used and the interpreter differs; this sees that
// it is there. Intel SDM Vol. 3A 4.10.4.1 (what ends an entry), 4.6.1 (access rights).
//
// Keeps its own account of the TLB, in the plainest way: each walk adds a warrant, each flush ends those it names. Stands
// in front of the engine's mirror. Owned by the vCPU's thread.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "cpu/mmu.h"
#include "engine/accelerator.h"

namespace trapline::engine::verify {

class Warrants final : public cpu::TlbMirror {
 public:
  // Becomes cpu.tlb_mirror; the TLB begins empty.
  explicit Warrants(cpu::Vcpu& cpu);
  ~Warrants() override;

  // Between stretches. Looks at what `engine` has come to reach since the last call, and now and then at all of it.
  // Empty: it may. Else: what, for people.
  std::string check(Accelerator& engine);
  // What is wrong with this one; null: nothing.
  const char* objection(const Reach& reach) const;

  void flushed_all() override;
  void flushed_nonglobal() override;
  void flushed_page(Gva linear) override;
  void faulted_page(Gva linear) override;
  void switched() override;
  void flushed_context(u16 pcid) override;
  void flushed_all_contexts() override;
  void dropped_write(Gpa page) override { inner_->dropped_write(page); }
  void dropped_all_write() override { inner_->dropped_all_write(); }
  void filled(const cpu::TlbEntry& e) override;

 private:
  struct Warrant {
    Gpa gpa;
    u64 born = 0;  // in flushes
    u32 perm = 0;
    u16 pcid = 0;
    u8 page_shift = 12;
    bool global = false, wp = false;  // CR0.WP then: permissions to write follow from it
  };
  // Beyond it the TLB is flushed.
  static constexpr std::size_t kMostPages = 1 << 17;
  // Stretches between two looks at everything; the second: after a flush.
  static constexpr unsigned kEvery = 8192, kAfterFlush = 64;

  bool alive(const Warrant& w) const;
  u16 pcid() const { return cpu_.cr4 & cpu::cr4::pcide ? cpu_.cr3 & 0xfff : 0; }
  bool current(const Warrant& w) const { return w.global || w.pcid == pcid(); }
  template <class F>
  void end_large(Gva linear, F&& ends);
  std::string describe(const Reach& reach, const char* objection) const;

  cpu::Vcpu& cpu_;
  cpu::TlbMirror* const inner_;
  std::map<Gva, std::vector<Warrant>> pages_;  // by linear address
  std::array<u64, 4096> ended_{};              // by PCID: what was born before is over, unless global
  u64 flushes_ = 1;
  u8 sizes_ = 0;  // of large pages seen: bit 0 2 MiB, 1 4 MiB, 2 1 GiB
  unsigned since_ = 0;
  bool flushed_ = false;
};

}  // namespace trapline::engine::verify
