// Runs guest user code in the cage of its address space, until something happens that only the translator or the
// interpreter can do. docs/cages.md.
#pragma once

#include "channel/spin.h"
#include "engine/interpret/accelerator.h"
#include "engine/patch/cages.h"
#include "engine/patch/tiers.h"

namespace trapline::engine::patch {

class Direct {
 public:
  Direct(cpu::Vcpu& cpu, Cages& cages, const Tiers& tiers, unsigned vcpus);

  // User code at cpu.rip is to run in a cage now.
  bool takes();
  // User code is about to run translated.
  void translated();
  interpret::Accelerator::ExitReason run();

 private:
  using ExitReason = interpret::Accelerator::ExitReason;
  bool possible() const;
  u64 program() const;  // what `tiers_` knows it by
  u64 root() const { return cpu_.cr3 & 0x000ffffffffff000; }
  void enter(cage::Cage& cage);
  void resume(AddressSpace& space);
  bool wants_out() const;
  void wait(cage::Cage& cage);
  bool spin(cage::Cage& cage, u64 ticks) const;
  void sleep(cage::Cage& cage);
  void stop_it(cage::Cage& cage);
  void put_back(cage::Cage& cage);
  ExitReason leave(AddressSpace& space, ExitReason why);
  ExitReason died();
  void count(const cage::Stop& stop);
  // Nothing: it goes on.
  ExitReason serve(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_page_fault(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_call(AddressSpace& space, const cage::Stop& stop);
  ExitReason serve_trap(AddressSpace& space, const cage::Stop& stop);
  bool passed_filter(const cage::Stop& stop);
  u8 guest_byte(u64 linear) const;

  cpu::Vcpu& cpu_;
  Cages& cages_;
  Tiers tiers_;
  cage::Registers registers_;
  u64 vectors_at_ = 0;        // where the newest vector state is: cage::Cage::kVectors, or in the signal stack
  bool vectors_ran_ = false;  // and cpu.vec is older
  void choose_place(cage::Cage& cage);
  bool spare_cpu_;                          // beside those of the vCPUs
  bool apart_ = false;                      // core and cage on two CPUs, polling; else on one, sleeping
  u64 mean_inside_ = 0, mean_outside_ = 0;  // ticks between stops, and between a stop and the next entry
  u64 last_fault_ = 0;
  unsigned same_faults_ = 0;
  unsigned singles_ = 0;  // instructions of refused pages, one by one, since the last stretch in a cage
  Tiers::Stay stay_;      // of this run
  u64 left_at_ = 0;
  u64 trap_ticks_;  // what the host takes for a signal, which no clock of ours sees
  // A fault that the guest has been told of: once its tables have the page, so has the cage.
  struct {
    u64 root = ~u64{0}, linear = 0;
    AddressSpace::Want want = AddressSpace::Want::read;
  } told_;
};

}  // namespace trapline::engine::patch
