#include "cpu/lapic.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "cpu/events.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {
namespace {

// Register offsets.
constexpr u32 kId = 0x20, kTpr = 0x80, kPpr = 0xa0, kEoi = 0xb0, kLdr = 0xd0, kDfr = 0xe0, kSvr = 0xf0, kIsr = 0x100,
              kTmr = 0x180, kIrr = 0x200, kEsr = 0x280, kIcrLow = 0x300, kIcrHigh = 0x310, kTimer = 0x320,
              kLint0 = 0x350, kLint1 = 0x360, kError = 0x370, kInitial = 0x380, kCurrent = 0x390, kDivide = 0x3e0;
constexpr u32 kMasked = 1u << 16, kPeriodic = 1u << 17, kDeadline = 1u << 18;
constexpr u32 kX2 = 0x800, kApicBase = 0x1b, kDeadlineMsr = 0x6e0;

struct FakeBus : Bus {
  std::vector<u8> eois;
  u32 port_read(Vcpu&, u16, unsigned) override { return ~0u; }
  void port_write(Vcpu&, u16, unsigned, u32) override {}
  u64 mmio_read(Vcpu&, Gpa, unsigned) override { return ~u64{0}; }
  void mmio_write(Vcpu&, Gpa, unsigned, u64) override {}
  u8 pic_acknowledge(Vcpu&) override { return 0x20; }
  void ioapic_eoi(Vcpu&, u8 vector) override { eois.push_back(vector); }
};

struct LapicTest : testing::Test {
  struct Unit {
    Vcpu cpu;
    LapicInbox inbox{};
    LapicMirror mirror{};
    FakeBus bus;
    std::unique_ptr<Lapic> apic;
  };
  Clock clock;
  std::optional<Cpuid> cpuid;
  std::vector<std::unique_ptr<Unit>> units;
  std::vector<u32> woken;

  void SetUp() override {
    clock.instructions = true;  // time is what virtual_base says
    cpuid = *Cpuid::make({.cpus = 4, .para_kvm = false, .tsc_khz = 1'000'000, .features = {}});
    for (u32 i = 0; i < 4; i++) {
      auto& u = *units.emplace_back(std::make_unique<Unit>());
      u.cpu.index = i;
      u.cpu.clock = &clock;
      u.cpu.cpuid = &*cpuid;
      u.cpu.bus = &u.bus;
      u.apic = std::make_unique<Lapic>(u.cpu, u.inbox, u.mirror);
      u.cpu.lapic = u.apic.get();
    }
    std::vector<Lapic::Peer> peers;
    for (auto& u : units) peers.push_back({u->apic.get(), &u->inbox, &u->mirror, u->cpu.attention});
    for (auto& u : units) {
      u->apic->connect(
          peers, [](void* self, u32 index) { static_cast<LapicTest*>(self)->woken.push_back(index); }, this);
      u->apic->mmio_write(kSvr, 0x1ff);
    }
  }

  Lapic& apic(u32 i = 0) { return *units[i]->apic; }
  Vcpu& cpu(u32 i = 0) { return units[i]->cpu; }
  u32 read(u32 offset, u32 i = 0) { return apic(i).mmio_read(offset); }
  void write(u32 offset, u32 value, u32 i = 0) { apic(i).mmio_write(offset, value); }
  void ipi(u32 low, u32 destination = 0, u32 from = 0) {
    write(kIcrHigh, destination << 24, from);
    write(kIcrLow, low, from);
  }
  u32 take_attention(u32 i) { return cpu(i).attention->exchange(0); }
  void post(u32 i, u8 vector, bool level = false) {
    if (level) units[i]->inbox.level[vector / 64] |= u64{1} << vector % 64;
    units[i]->inbox.fixed[vector / 64] |= u64{1} << vector % 64;
  }
  void at(u64 tsc) { clock.virtual_base = tsc; }
  void poll_timer(u32 i = 0) { apic(i).on_timer(cpu(i).vm_tsc()); }
  // Accepts what is pending and ends it; -1: nothing was.
  int take(u32 i = 0) {
    const auto v = apic(i).pending();
    if (!v) return -1;
    apic(i).accept(*v);
    write(kEoi, 0, i);
    return *v;
  }
  void enter_x2apic(u32 i) {
    u64 base;
    ASSERT_TRUE(apic(i).msr_read(kApicBase, &base));
    ASSERT_TRUE(apic(i).msr_write(kApicBase, base | 0x400));
  }
};

TEST_F(LapicTest, ResetState) {
  EXPECT_EQ(read(kId, 2), 2u << 24);
  EXPECT_EQ(read(0x30), 0x50014u);
  EXPECT_EQ(read(kTimer, 1), kMasked);
  EXPECT_EQ(read(kLint0, 1), kMasked);
  EXPECT_EQ(read(kDfr), ~0u);
  u64 base;
  ASSERT_TRUE(apic(0).msr_read(kApicBase, &base));
  EXPECT_EQ(base, 0xfee00900u);
  ASSERT_TRUE(apic(1).msr_read(kApicBase, &base));
  EXPECT_EQ(base, 0xfee00800u);
  EXPECT_TRUE(apic().owns(Gpa{0xfee00080}));
  EXPECT_FALSE(apic().owns(Gpa{0xfee01000}));
}

TEST_F(LapicTest, HighestPriorityFirstAndPprHoldsLowerOnesBack) {
  post(0, 0x31);
  post(0, 0x52);
  post(0, 0x35);
  ASSERT_EQ(apic().pending(), 0x52);
  apic().accept(0x52);
  EXPECT_EQ(read(kPpr), 0x50u);
  EXPECT_EQ(read(kIsr + 0x20), 1u << (0x52 - 0x40));
  EXPECT_EQ(read(kIrr + 0x10), 1u << 0x11 | 1u << 0x15);
  EXPECT_EQ(apic().pending(), std::nullopt);
  post(0, 0x5f);  // same class: must wait
  EXPECT_EQ(apic().pending(), std::nullopt);
  post(0, 0x60);
  EXPECT_EQ(apic().pending(), 0x60);
  take_attention(0);
  write(kEoi, 0);
  EXPECT_TRUE(take_attention(0) & attention::interrupt) << "lowering the priority must make the vCPU look again";
  EXPECT_EQ(take(), 0x60);
  EXPECT_EQ(take(), 0x5f);
  EXPECT_EQ(take(), 0x35);
  EXPECT_EQ(take(), 0x31);
  EXPECT_EQ(take(), -1);
}

TEST_F(LapicTest, TprMasksByClass) {
  write(kTpr, 0x40);
  post(0, 0x4f);
  EXPECT_EQ(apic().pending(), std::nullopt);
  take_attention(0);
  apic().set_tpr(0x3f);
  EXPECT_TRUE(take_attention(0) & attention::interrupt);
  EXPECT_EQ(apic().pending(), 0x4f);
  EXPECT_EQ(apic().tpr(), 0x3fu);
  EXPECT_EQ(read(kPpr), 0x3fu);
}

TEST_F(LapicTest, LevelVectorsTellTheIoapicOnEoi) {
  post(0, 0x41, true);
  post(0, 0x42, false);
  ASSERT_EQ(apic().pending(), 0x42);
  EXPECT_EQ(read(kTmr + 0x20), 2u);
  EXPECT_EQ(take(), 0x42);
  EXPECT_EQ(take(), 0x41);
  EXPECT_EQ(units[0]->bus.eois, std::vector<u8>{0x41});
  post(0, 0x41, false);  // now edge: TMR follows
  EXPECT_EQ(take(), 0x41);
  EXPECT_EQ(units[0]->bus.eois.size(), 1u);
  write(kEoi, 0);  // nothing in service
  EXPECT_EQ(units[0]->bus.eois.size(), 1u);
}

TEST_F(LapicTest, IllegalVectorsInTheInboxBecomeErrors) {
  post(0, 3);
  EXPECT_EQ(apic().pending(), std::nullopt);
  EXPECT_EQ(read(kEsr), 0u);
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0x40u);
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0u);
}

TEST_F(LapicTest, ErrorsInterruptOnce) {
  write(kError, 0x33);
  ipi(0x5, 1);      // illegal vector
  write(0x3f0, 0);  // no such register in xAPIC mode
  EXPECT_EQ(take(), 0x33);
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0x20u | 0x80u);
  write(kError, 0x3);  // an error entry that is itself in error must not loop
  ipi(0x5, 1);
  EXPECT_EQ(take(), -1);
}

TEST_F(LapicTest, SoftwareDisableMasksTheEntriesAndRefusesNewRequests) {
  write(kTimer, 0x40);
  post(0, 0x50);
  ASSERT_EQ(apic().pending(), 0x50);
  write(kSvr, 0xff);
  EXPECT_EQ(read(kTimer), 0x40u | kMasked);
  write(kTimer, 0x40);
  EXPECT_TRUE(read(kTimer) & kMasked) << "mask bits stay set while disabled";
  post(0, 0x60);
  EXPECT_EQ(apic().pending(), 0x50) << "held requests stay, new ones are dropped";
}

TEST_F(LapicTest, PhysicalIpiPostsThenSetsAttentionThenWakes) {
  ipi(0x4000 | 0x77, 2);
  EXPECT_EQ(woken, std::vector<u32>{2});
  EXPECT_EQ(take_attention(2), attention::interrupt);
  EXPECT_EQ(take(2), 0x77);
  EXPECT_EQ(take(1), -1);
  EXPECT_EQ(take(0), -1);
}

TEST_F(LapicTest, SelfIpiNeedsNoInbox) {
  take_attention(0);
  ipi(1u << 18 | 0x66);
  EXPECT_EQ(units[0]->inbox.fixed[1].load(), 0u);
  EXPECT_EQ(take_attention(0), attention::interrupt);
  EXPECT_TRUE(woken.empty());
  EXPECT_EQ(take(), 0x66);
  ipi(0x67, 0);  // physically addressed to oneself
  EXPECT_EQ(take(), 0x67);
}

TEST_F(LapicTest, Shorthands) {
  ipi(2u << 18 | 0x70, 0, 1);
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take(i), 0x70) << i;
  ipi(3u << 18 | 0x71, 0, 1);
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take(i), i == 1 ? -1 : 0x71) << i;
  ipi(0x72, 0xff, 1);  // broadcast id
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take(i), 0x72) << i;
}

TEST_F(LapicTest, LogicalFlatAndCluster) {
  for (u32 i = 0; i < 4; i++) write(kLdr, (1u << i) << 24, i);
  ipi(0x800 | 0x70, 0b1010);
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take(i), i & 1 ? 0x70 : -1) << i;
  for (u32 i = 0; i < 4; i++) {
    write(kDfr, 0x0fffffff, i);
    write(kLdr, ((i / 2) << 4 | 1u << i % 2) << 24, i);
  }
  ipi(0x800 | 0x71, 0x13);  // cluster 1, members 0 and 1
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take(i), i >= 2 ? 0x71 : -1) << i;
}

TEST_F(LapicTest, LowestPriorityPicksExactlyOneThatAccepts) {
  for (u32 i = 0; i < 4; i++) write(kLdr, (1u << i) << 24, i);
  write(kSvr, 0xff, 2);
  std::map<u32, int> hits;
  for (int n = 0; n < 9; n++) {
    ipi(0x800 | 0x100 | 0x70, 0b1111);
    int taken = 0;
    for (u32 i = 0; i < 4; i++)
      if (take(i) == 0x70) hits[i]++, taken++;
    EXPECT_EQ(taken, 1);
  }
  EXPECT_EQ(hits, (std::map<u32, int>{{0, 3}, {1, 3}, {3, 3}}));
}

TEST_F(LapicTest, NmiInitAndStartup) {
  ipi(0x4400, 1);
  EXPECT_EQ(take_attention(1), attention::nmi);
  ipi(0xc500, 1);  // INIT, level, assert
  EXPECT_EQ(take_attention(1), attention::init);
  ipi(0x8500, 1);  // level de-assert: no message
  EXPECT_EQ(take_attention(1), 0u);
  ipi(0x4600 | 0x9a, 1);
  EXPECT_EQ(take_attention(1), attention::sipi);
  EXPECT_EQ(apic(1).sipi_vector(), 0x9a);
  EXPECT_EQ(woken, (std::vector<u32>{1, 1, 1}));
  ipi(3u << 18 | 0x4500);
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(take_attention(i), i ? attention::init : 0u);
}

TEST_F(LapicTest, InitKeepsModeAndIdButClearsTheRest) {
  enter_x2apic(1);
  post(1, 0x55);
  ASSERT_TRUE(apic(1).pending());
  apic(1).reset(true);
  EXPECT_EQ(apic(1).pending(), std::nullopt);
  u64 v;
  ASSERT_TRUE(apic(1).msr_read(kApicBase, &v));
  EXPECT_EQ(v, 0xfee00c00u);
  ASSERT_TRUE(apic(1).msr_read(kX2 + 2, &v));
  EXPECT_EQ(v, 1u);
}

TEST_F(LapicTest, ModeTransitions) {
  u64 v;
  EXPECT_FALSE(apic().msr_read(kX2 + 2, &v)) << "no x2APIC registers in xAPIC mode";
  EXPECT_FALSE(apic().msr_write(kApicBase, 0xfee00500)) << "EXTD without EN";
  EXPECT_FALSE(apic().msr_write(kApicBase, 0xfee00901)) << "reserved bit";
  EXPECT_FALSE(apic().msr_write(kApicBase, u64{1} << 60 | 0xfee00900)) << "beyond the physical address width";
  EXPECT_TRUE(apic().msr_write(kApicBase, 0xfee00d00));
  EXPECT_FALSE(apic().owns(Gpa{0xfee00000}));
  EXPECT_FALSE(apic().msr_write(kApicBase, 0xfee00900)) << "x2APIC to xAPIC needs a way through disabled";
  EXPECT_TRUE(apic().msr_write(kApicBase, 0xfee00100));
  EXPECT_FALSE(apic().enabled());
  EXPECT_FALSE(apic().msr_write(kApicBase, 0xfee00d00)) << "disabled to x2APIC at once";
  EXPECT_TRUE(apic().msr_write(kApicBase, 0xfed00800));
  EXPECT_TRUE(apic().owns(Gpa{0xfed00000}));
  ASSERT_TRUE(apic().msr_read(kApicBase, &v));
  EXPECT_EQ(v, 0xfed00900u) << "the boot processor flag is not for software to change";
}

TEST_F(LapicTest, APostAfterInitCountsOnceTheGuestHasEnabledItsApic) {
  apic(1).reset(true);
  post(1, 0x44);
  EXPECT_EQ(take(1), -1) << "INIT leaves the APIC software-disabled: it accepts nothing";
  write(kSvr, 0x1ff, 1);
  post(1, 0x45);
  EXPECT_EQ(take(1), 0x45);
  EXPECT_EQ(take(1), -1);
}

TEST_F(LapicTest, DisabledApicPassesNothingButExtint) {
  units[0]->inbox.extint = 1;
  ASSERT_TRUE(apic().msr_write(kApicBase, 0xfee00100));
  post(0, 0x50);
  EXPECT_EQ(apic().pending(), std::nullopt);
  EXPECT_TRUE(apic().extint_pending());
  ipi(0x77, 0, 1);
  EXPECT_EQ(units[0]->inbox.fixed[1].load() >> (0x77 - 64) & 1, 0u) << "a disabled APIC is addressed by nobody";
}

TEST_F(LapicTest, ExtintThroughLint0) {
  units[0]->inbox.extint = 1;
  EXPECT_TRUE(apic().extint_pending()) << "virtual wire after RESET on vCPU 0";
  write(kLint0, 0x700 | kMasked);
  EXPECT_FALSE(apic().extint_pending());
  write(kLint0, 0x700);
  EXPECT_TRUE(apic().extint_pending());
  units[0]->inbox.extint = 0;
  EXPECT_FALSE(apic().extint_pending());
  write(kLint0, 0x31);  // as an ordinary fixed source: one interrupt per edge
  EXPECT_EQ(take(), -1);
  units[0]->inbox.extint = 1;
  EXPECT_EQ(take(), 0x31);
  EXPECT_EQ(take(), -1);
  EXPECT_FALSE(apic().extint_pending());
}

// Rises are counted: one that is over, or that follows a fall which nobody saw, is an edge all the same.
TEST_F(LapicTest, Lint0SeesEdgesBetweenItsLooks) {
  write(kLint0, 0x31);
  units[0]->inbox.extint = 2 | 1;
  EXPECT_EQ(take(), 0x31);
  units[0]->inbox.extint = 4 | 1;  // fell and rose
  EXPECT_EQ(take(), 0x31);
  units[0]->inbox.extint = 4;
  EXPECT_EQ(take(), -1) << "a fall is none";
  units[0]->inbox.extint = 6;  // rose and fell
  EXPECT_EQ(take(), 0x31);
  write(kLint0, 0x31 | kMasked);
  units[0]->inbox.extint = 10;
  write(kLint0, 0x31);
  EXPECT_EQ(take(), -1) << "an edge while the pin was masked is lost";
  units[0]->inbox.extint = 12;
  apic().reset(true);
  write(kSvr, 0x1ff);
  write(kLint0, 0x31);
  EXPECT_EQ(take(), -1) << "an edge before INIT is not one behind it";
}

TEST_F(LapicTest, X2ApicRegistersAndReservedBits) {
  enter_x2apic(3);
  u64 v;
  ASSERT_TRUE(apic(3).msr_read(kX2 + 2, &v));
  EXPECT_EQ(v, 3u);
  ASSERT_TRUE(apic(3).msr_read(kX2 + 0xd, &v));
  EXPECT_EQ(v, 1u << 3);
  EXPECT_FALSE(apic(3).msr_write(kX2 + 2, 9)) << "id";
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0xd, 1)) << "LDR";
  EXPECT_FALSE(apic(3).msr_read(kX2 + 0xe, &v)) << "DFR does not exist";
  EXPECT_FALSE(apic(3).msr_read(kX2 + 0xb, &v)) << "EOI is write-only";
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0xb, 1));
  EXPECT_TRUE(apic(3).msr_write(kX2 + 0xb, 0));
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0x28, 1)) << "ESR takes 0 alone";
  EXPECT_FALSE(apic(3).msr_write(kX2 + 8, 0x100));
  EXPECT_TRUE(apic(3).msr_write(kX2 + 8, 0x20));
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0x32, 0x400)) << "the timer entry has no delivery mode";
  EXPECT_TRUE(apic(3).msr_write(kX2 + 0x32, 0x40 | kMasked));
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0x38, u64{1} << 32));
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0x31, 0)) << "ICR is one register";
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0x40, 0));
  EXPECT_FALSE(apic(3).msr_write(kX2 + 0xff, 0));
}

TEST_F(LapicTest, X2ApicIpis) {
  for (u32 i = 0; i < 4; i++) enter_x2apic(i);
  for (u32 i = 0; i < 4; i++) ASSERT_TRUE(apic(i).msr_write(kX2 + 0xf, 0x1ff));
  const auto end = [&](u32 i) {
    const auto vector = apic(i).pending();
    if (!vector) return -1;
    apic(i).accept(*vector);
    EXPECT_TRUE(apic(i).msr_write(kX2 + 0xb, 0));
    return int{*vector};
  };
  ASSERT_TRUE(apic().msr_write(kX2 + 0x30, u64{2} << 32 | 0x61));
  EXPECT_EQ(end(2), 0x61);
  u64 v;
  ASSERT_TRUE(apic().msr_read(kX2 + 0x30, &v));
  EXPECT_EQ(v, u64{2} << 32 | 0x61);
  ASSERT_TRUE(apic().msr_write(kX2 + 0x30, u64{0b1010} << 32 | 0x800 | 0x62));  // cluster 0, members 1 and 3
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(end(i), i & 1 ? 0x62 : -1);
  ASSERT_TRUE(apic().msr_write(kX2 + 0x30, u64{0x1000f} << 32 | 0x800 | 0x63));  // cluster 1: nobody
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(end(i), -1);
  ASSERT_TRUE(apic().msr_write(kX2 + 0x30, u64{0xffffffff} << 32 | 0x64));
  for (u32 i = 0; i < 4; i++) EXPECT_EQ(end(i), 0x64);
  ASSERT_TRUE(apic().msr_write(kX2 + 0x3f, 0x65));  // self IPI
  EXPECT_EQ(end(0), 0x65);
  EXPECT_FALSE(apic().msr_write(kX2 + 0x3f, 0x100));
  EXPECT_FALSE(apic().msr_write(kX2 + 0x30, 0x100000)) << "reserved ICR bit";
}

// -- Timer: the clock's TSC runs at 1 GHz here, one count per tick with divide by 1

TEST_F(LapicTest, OneShot) {
  write(kDivide, 0xb);
  write(kTimer, 0x40);
  at(1000);
  write(kInitial, 500);
  EXPECT_EQ(cpu().timer_deadline, 1500u);
  EXPECT_EQ(read(kCurrent), 500u);
  at(1400);
  EXPECT_EQ(read(kCurrent), 100u);
  poll_timer();
  EXPECT_EQ(take(), -1);
  at(1500);
  poll_timer();
  EXPECT_EQ(read(kCurrent), 0u);
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
  EXPECT_EQ(take(), 0x40);
  at(9000);
  poll_timer();
  EXPECT_EQ(take(), -1);
  write(kInitial, 500);
  write(kInitial, 0);  // stops it
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
}

TEST_F(LapicTest, DivideRegister) {
  const std::pair<u32, u32> codes[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {0xa, 128}, {0xb, 1}};
  write(kTimer, 0x40);
  for (const auto& [code, divisor] : codes) {
    write(kDivide, code);
    at(0);
    write(kInitial, 100);
    EXPECT_EQ(cpu().timer_deadline, 100u * divisor) << code;
  }
  at(0);
  write(kInitial, 100);
  at(40);
  write(kDivide, 0);  // 60 counts left, now of two ticks each
  EXPECT_EQ(read(kCurrent), 60u);
  EXPECT_EQ(cpu().timer_deadline, 160u);
}

TEST_F(LapicTest, PeriodicMergesLateTicks) {
  write(kDivide, 0xb);
  write(kTimer, 0x40 | kPeriodic);
  at(0);
  write(kInitial, 100);
  at(100);
  poll_timer();
  EXPECT_EQ(take(), 0x40);
  EXPECT_EQ(cpu().timer_deadline, 200u);
  at(1030);  // nine ticks late
  poll_timer();
  EXPECT_EQ(read(kCurrent), 70u);
  EXPECT_EQ(take(), 0x40);
  EXPECT_EQ(cpu().timer_deadline, 1100u);
  EXPECT_EQ(take(), -1);
}

// A guest that holds the timer's interrupt back would not see another: nobody is woken for it.
TEST_F(LapicTest, PeriodicTimerIsQuietWhileItsInterruptWaits) {
  write(kDivide, 0xb);
  write(kTimer, 0x40 | kPeriodic);
  write(kTpr, 0xf0);
  at(0);
  write(kInitial, 100);
  at(100);
  poll_timer();
  EXPECT_EQ(take(), -1);
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
  at(1030);
  EXPECT_EQ(read(kCurrent), 70u) << "it counts all the same";
  write(kTpr, 0);
  EXPECT_EQ(take(), 0x40);
  EXPECT_EQ(cpu().timer_deadline, 1100u);
  at(1100);
  poll_timer();
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
  at(1250);
  write(kTimer, 0x41 | kPeriodic);  // another vector: it would be seen
  EXPECT_EQ(cpu().timer_deadline, 1300u);
  at(1350);
  poll_timer();
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
  write(kTimer, 0x42);  // the rest of this period as a one-shot
  EXPECT_EQ(cpu().timer_deadline, 1400u);
}

// As a watchdog: IF does not hold an NMI back, so the pin is looked at without it.
TEST_F(LapicTest, Lint0AsNmiNeedsNoInterruptFlag) {
  EXPECT_FALSE(apic().lint0_wakes());
  write(kLint0, 0x400);
  EXPECT_TRUE(apic().lint0_wakes());
  cpu().activity = Activity::halted;
  cpu().sys_flags = 0;
  EXPECT_FALSE(wakeable(cpu()));
  units[0]->inbox.extint = 1;
  cpu().attention->fetch_or(attention::interrupt);
  EXPECT_TRUE(wakeable(cpu()));
  EXPECT_TRUE(cpu().attention->load() & attention::nmi);
}

TEST_F(LapicTest, MaskedTimerCountsButDoesNotInterrupt) {
  write(kDivide, 0xb);
  write(kTimer, 0x40 | kPeriodic | kMasked);
  at(0);
  write(kInitial, 100);
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
  at(250);
  EXPECT_EQ(read(kCurrent), 50u);
  write(kTimer, 0x40 | kPeriodic);
  EXPECT_EQ(cpu().timer_deadline, 300u);
  EXPECT_EQ(take(), -1);
  write(kTimer, 0x40 | kMasked);
  at(1000);
  write(kTimer, 0x40);  // a one-shot that ran out while masked is lost
  poll_timer();
  EXPECT_EQ(take(), -1);
}

TEST_F(LapicTest, TscDeadline) {
  u64 v;
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, 500));
  ASSERT_TRUE(apic().msr_read(kDeadlineMsr, &v));
  EXPECT_EQ(v, 0u) << "ignored in the other modes";
  write(kTimer, 0x40 | kDeadline);
  at(1000);
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, 5000));
  EXPECT_EQ(cpu().timer_deadline, 5000u);
  write(kInitial, 7);
  EXPECT_EQ(read(kCurrent), 0u);
  at(5000);
  poll_timer();
  EXPECT_EQ(take(), 0x40);
  ASSERT_TRUE(apic().msr_read(kDeadlineMsr, &v));
  EXPECT_EQ(v, 0u);
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, 4000));  // already past
  EXPECT_EQ(take(), 0x40);
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, 9000));
  write(kTimer, 0x40);  // leaving the mode disarms
  EXPECT_EQ(cpu().timer_deadline, ~u64{0});
}

TEST_F(LapicTest, TscDeadlineFollowsTscAdjust) {
  write(kTimer, 0x40 | kDeadline);
  at(1000);
  cpu().msr.tsc_adjust = static_cast<u64>(-400);  // the guest reads 600
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, 700));
  EXPECT_EQ(cpu().timer_deadline, 1100u);
  cpu().msr.tsc_adjust = 0;
  apic().tsc_adjusted();
  EXPECT_EQ(take(), 0x40) << "now it reads 1000: due";
  ASSERT_TRUE(apic().msr_write(kDeadlineMsr, ~u64{0}));
  EXPECT_GT(cpu().timer_deadline, u64{1} << 62);
  EXPECT_EQ(take(), -1);
}

TEST_F(LapicTest, UnalignedAndUnknownOffsetsAreHarmless) {
  for (u32 offset = 0; offset < 0x1000; offset++) {
    write(offset, 0xffffffff, 1);
    read(offset, 1);
  }
  for (u32 index = 0; index < 0x100; index++) {
    u64 v;
    apic(2).msr_read(kX2 + index, &v);
    apic(2).msr_write(kX2 + index, ~u64{0});
  }
  EXPECT_EQ(read(kIsr + 4), 0u);
}

}  // namespace
}  // namespace trapline::cpu
