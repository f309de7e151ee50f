// What two runs of the same stretch write to guest RAM. Nobody has write permission in any TLB when a stretch begins
// (cpu/write_watch.h), so the first write to each page is announced and the page kept; the second run starts with all
// of them put back.
//
// A and D bits that page walks set stay: the TLB that both runs share has the entries already.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/guest_memory.h"
#include "cpu/mmu.h"
#include "cpu/write_watch.h"

namespace trapline::engine::verify {

class Journal final : public cpu::WriteWatch {
 public:
  // One for all vCPUs: they run on one thread.
  static std::shared_ptr<Journal> shared();
  ~Journal() override;

  // More pages than this are not kept: a REP over all memory would be.
  static constexpr std::size_t kMost = 1024;

  // The first run begins. `stop` is set when there are too many pages. `wide`: the pages beside those that are written
  // are kept too, so a write past the end of what was looked up is seen.
  void begin(const GuestMemory& ram, std::atomic<u32>& stop, bool wide);
  // It is over: its pages are as before, and the second begins.
  void turn_over();
  // Both are over; memory is as the second has left it. Do the two agree?
  bool equal();
  // Everything is as before the first.
  void undo();
  void end();

  // Was there an access to device memory (which was not made)?
  bool touched_device() const { return device_; }
  bool too_many() const { return used_ > (wide_ ? 3 * kMost : kMost); }
  // Have page walks set A or D bits?
  bool tables_marked() const { return !marks_.empty(); }
  // After equal() said no: what differs, for people.
  std::string describe() const;

  void forget_entries() { granted_.clear(); }  // their vCPU is going away

  void writing(Gpa page, cpu::TlbEntry& entry) override;
  void marked(void* entry, unsigned bytes, u64 bits) override;
  bool device() override;

 private:
  enum class Run : u8 { none, first, second };
  struct Page {
    Gpa gpa;
    u64 changed;             // bit by line of 64 bytes: by the first run
    u8 expected[kPageSize];  // what the first run has left
    u8 before[kPageSize];    // the changed lines as they were; the others are as expected
  };
  struct Mark {
    u8* at;
    unsigned bytes;
    u64 value, bits;  // without the bits
  };
  Journal() = default;
  void keep(Gpa page);
  void revoke();
  u8* host(Gpa gpa) const { return reinterpret_cast<u8*>(ram_->host(gpa)); }
  const u8* before(const Page& p, u64 line) const;
  void mark(u8* entry, const Mark& m) const;
  void mark_page(Gpa gpa, u8* copy) const;

  const GuestMemory* ram_ = nullptr;
  std::atomic<u32>* stop_ = nullptr;
  Run run_ = Run::none;
  bool device_ = false, wide_ = false;
  std::vector<std::unique_ptr<Page>> pages_;  // a pool: the first `used_`
  std::size_t used_ = 0;
  std::vector<Mark> marks_;
  std::vector<cpu::TlbEntry*> granted_;  // may write; since the last stretch began
};

}  // namespace trapline::engine::verify
