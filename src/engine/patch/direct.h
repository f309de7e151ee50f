// Runs guest user code in the cage of its address space, until something happens that only the translator or the
// interpreter can do. docs/cages.md.
#pragma once

#include "engine/accelerator.h"
#include "engine/patch/cages.h"
#include "engine/patch/handover.h"
#include "engine/patch/tiers.h"
#include "engine/patch/trap_cost.h"

namespace trapline::engine::patch {

class Direct {
 public:
  Direct(cpu::Vcpu& cpu, Cages& cages, const Tiers& tiers, unsigned vcpus);

  // User code at cpu.rip is to run in a cage now. Else it runs translated, until it is asked again or told that it left.
  bool takes();
  void left_user();
  ExitReason run();

 private:
  bool possible() const;
  u64 decoded() const { return cpu_.count.instructions_decoded + cpu_.count.instructions_translated; }
  u64 program() const;  // what `tiers_` knows it by
  Gpa root() const { return Gpa{cpu_.cr3 & 0x000ffffffffff000}; }
  void enter(cage::Cage& cage);
  void resume(AddressSpace& space);
  void put_back(cage::Cage& cage);
  ExitReason leave(AddressSpace& space, ExitReason why);
  ExitReason died(const cage::Cage& cage);
  void count(const cage::Stop& stop);
  ExitReason emulate(AddressSpace& space);
  // Nothing: it goes on.
  ExitReason serve(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_page_fault(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_call(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_trap(AddressSpace& space, const cage::Stop& stop);
  bool passed_filter(const cage::Stop& stop);
  bool adopt_selectors(const cage::Stop& stop);
  bool writes_code(Gva linear);
  bool allows(Gva address, AddressSpace::Want want);
  u8 guest_byte(Gva linear) const;

  cpu::Vcpu& cpu_;
  Cages& cages_;
  Tiers tiers_;
  cage::Registers registers_;
  u64 vectors_at_ = 0;        // where the newest vector state is: cage::Cage::kVectors, or in the signal stack
  bool vectors_ran_ = false;  // and cpu.vec is older
  Handover handover_;
  u64 last_fault_ = 0;
  unsigned same_faults_ = 0;
  Gpa written_code_{~u64{0}};  // the frame of the last write to one with code
  unsigned singles_ = 0;       // instructions of refused pages, one by one, since the last stretch in a cage
  struct {
    u64 program = 0, since = 0, decoded = 0;  // since: TSC; 0: no user code runs translated, or it is not timed
    unsigned stands_for = 1, skipped = 0;     // of brief stretches every fourth is timed
  } translated_;
  Tiers::Stay stay_;  // of this run
  u64 timer_ = 0;     // the vCPU's deadline, which is nearer while writes are watched
  u64 left_at_ = 0;
  TrapCost call_cost_{3000, 8'000}, fault_cost_{6000, 80'000};
  // A fault that the guest has been told of: once its tables have the page, so has the cage.
  struct {
    Gpa root{~u64{0}};  // nobody's
    Gva linear;
    AddressSpace::Want want = AddressSpace::Want::read;
  } told_;
};

}  // namespace trapline::engine::patch
