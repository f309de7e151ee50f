#include "para/kvm/kvm.h"

#include <gtest/gtest.h>
#include <x86intrin.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "channel/launch.h"
#include "cpu/events.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"

namespace trapline::para {
namespace {

constexpr u32 kWallClock = 0x4b564d00, kSystemTime = 0x4b564d01, kWallClockOld = 0x11, kSystemTimeOld = 0x12;

struct KvmTest : testing::Test {
  cpu::Clock clock;
  GuestMemory ram = *GuestMemory::anonymous(2 * MiB);
  cpu::Vcpu cpu;

  void SetUp() override {
    clock.instructions = true;
    cpu.clock = &clock;
    cpu.ram = &ram;
    cpu.ram_base = ram.base();
  }
  template <class T>
  T guest(u64 gpa) {
    T v;
    std::memcpy(&v, ram.host(Gpa{gpa}), sizeof v);
    return v;
  }
  // What the guest computes, as the interface documents it.
  static u64 guest_time(const VcpuTimeInfo& t, u64 guest_tsc) {
    u64 delta = guest_tsc - t.tsc_timestamp;
    delta = t.tsc_shift < 0 ? delta >> -t.tsc_shift : delta << t.tsc_shift;
    return t.system_time + static_cast<u64>(u128{delta} * t.tsc_to_system_mul >> 32);
  }
};

TEST_F(KvmTest, SystemTimeFollowsTheTsc) {
  for (const u64 khz : {500'000ull, 1'000'000ull, 1'999'999ull, 2'300'000ull, 5'000'000ull}) {
    clock.tsc_khz = khz;
    Kvm kvm{clock, 0};
    ASSERT_TRUE(kvm.msr_write(cpu, kSystemTime, 0x5000 | 1));
    const auto t = guest<VcpuTimeInfo>(0x5000);
    EXPECT_EQ(t.version % 2, 0u);
    EXPECT_EQ(t.flags, 1) << "TSC stable";
    for (const u64 seconds : {1ull, 3600ull, 86'400ull * 100}) {
      const u64 ns = seconds * 1'000'000'000;
      EXPECT_NEAR(static_cast<double>(guest_time(t, clock.ns_to_tsc(ns))), static_cast<double>(ns),
                  1.0 + static_cast<double>(ns) / (u64{1} << 31))
          << khz;
    }
  }
}

TEST_F(KvmTest, VersionIsEvenAndMovesWithEachUpdate) {
  Kvm kvm{clock, 0};
  for (const u32 stale : {0u, 7u, 0xffffffffu}) {
    std::memcpy(ram.host(Gpa{0x5000}), &stale, 4);
    ASSERT_TRUE(kvm.msr_write(cpu, kSystemTime, 0x5001));
    const u32 version = guest<u32>(0x5000);
    EXPECT_EQ(version % 2, 0u);
    EXPECT_NE(version, stale);
  }
}

TEST_F(KvmTest, AllVcpusReadTheSameTimeWhateverTheirTscAdjust) {
  clock.tsc_khz = 2'300'001;
  Kvm kvm{clock, 0};
  ASSERT_TRUE(kvm.msr_write(cpu, kSystemTime, 0x5001));
  cpu::Vcpu other;
  other.clock = &clock;
  other.ram = &ram;
  other.index = 1;
  other.msr.tsc_adjust = static_cast<u64>(-123'456'789);
  clock.virtual_base = 9'000'000'000;
  ASSERT_TRUE(kvm.msr_write(other, kSystemTime, 0x5041));
  EXPECT_EQ(guest_time(guest<VcpuTimeInfo>(0x5000), cpu.tsc()), guest_time(guest<VcpuTimeInfo>(0x5040), other.tsc()));
  other.msr.tsc_adjust = 55;
  kvm.tsc_adjusted(other);
  EXPECT_EQ(guest_time(guest<VcpuTimeInfo>(0x5000), cpu.tsc()), guest_time(guest<VcpuTimeInfo>(0x5040), other.tsc()));
}

TEST_F(KvmTest, WallClock) {
  Kvm kvm{clock, channel::kFixedWallNs + 42};
  ASSERT_TRUE(kvm.msr_write(cpu, kWallClock, 0x6000));
  const auto w = guest<WallClock>(0x6000);
  EXPECT_EQ(w.version % 2, 0u);
  EXPECT_EQ(w.sec, 1'735'689'600u);
  EXPECT_EQ(w.nsec, 42u);
}

TEST_F(KvmTest, WallClockFromTheHostIsNowMinusTheTsc) {
  clock.virtual_base = 5'000'000'000;  // five seconds after the TSC's zero
  const u64 before = static_cast<u64>(time(nullptr));
  const u64 zero = Kvm::wall_ns_from_host(clock) / 1'000'000'000;
  EXPECT_GE(zero + 6, before);
  EXPECT_LE(zero + 4, before + 1);
}

TEST_F(KvmTest, OldIndicesAreTheSameRegisters) {
  Kvm kvm{clock, channel::kFixedWallNs};
  u64 v;
  ASSERT_TRUE(kvm.msr_write(cpu, kSystemTimeOld, 0x5001));
  ASSERT_TRUE(kvm.msr_read(cpu, kSystemTime, &v));
  EXPECT_EQ(v, 0x5001u);
  ASSERT_TRUE(kvm.msr_write(cpu, kWallClockOld, 0x6000));
  ASSERT_TRUE(kvm.msr_read(cpu, kWallClock, &v));
  EXPECT_EQ(v, 0x6000u);
  for (u32 index : {0x4b564d02u, 0x4b564d03u, 0x4b564d04u, 0x4b564d05u}) {
    EXPECT_FALSE(kvm.msr_write(cpu, index, 1)) << "not offered";
    EXPECT_FALSE(kvm.msr_read(cpu, index, &v));
  }
}

TEST_F(KvmTest, DisabledOrOutsideRamWritesNothing) {
  Kvm kvm{clock, channel::kFixedWallNs};
  ASSERT_TRUE(kvm.msr_write(cpu, kSystemTime, 0x5000));  // bit 0 clear: off
  EXPECT_EQ(guest<u32>(0x5000), 0u);
  for (const u64 gpa :
       {u64{2 * MiB}, 2 * MiB - 16, u64{0xa0000}, u64{0xfee00000}, ~u64{0}, ~u64{0} - 8, u64{1} << 52}) {
    EXPECT_TRUE(kvm.msr_write(cpu, kSystemTime, gpa | 1));
    EXPECT_TRUE(kvm.msr_write(cpu, kWallClock, gpa));
  }
}

TEST_F(KvmTest, Hypercalls) {
  Kvm kvm{clock, 0};
  EXPECT_EQ(kvm.hypercall(cpu, 1, {}), 0u) << "VAPIC_POLL_IRQ";
  EXPECT_EQ(kvm.hypercall(cpu, 5, {}), 0u) << "KICK_CPU, and there is no APIC";
  for (u64 number : {0ull, 2ull, 9ull, 10ull, 11ull, 12ull, ~0ull})
    EXPECT_EQ(kvm.hypercall(cpu, number, {}), static_cast<u64>(-1000));
  EXPECT_EQ(kvm.hypercall_denied(cpu), static_cast<u64>(-1));
}

constexpr u32 kStealTime = 0x4b564d03;

struct Two : KvmTest {
  cpu::Vcpu other;
  cpu::LapicInbox inboxes[2]{};
  cpu::LapicMirror mirrors[2]{};
  std::optional<cpu::Lapic> lapics[2];
  std::vector<u32> woken;

  void SetUp() override {
    KvmTest::SetUp();
    cpu::Vcpu* both[] = {&cpu, &other};
    std::vector<cpu::Lapic::Peer> peers;
    for (u32 i = 0; i < 2; i++) {
      both[i]->clock = &clock, both[i]->ram = &ram, both[i]->ram_base = ram.base(), both[i]->index = i;
      lapics[i].emplace(*both[i], inboxes[i], mirrors[i]);
      both[i]->lapic = &*lapics[i];
      lapics[i]->reset(false);
      peers.push_back({&*lapics[i], &inboxes[i], &mirrors[i], both[i]->attention});
    }
    for (auto& lapic : lapics)
      lapic->connect(
          peers, [](void* self, u32 index) { static_cast<Two*>(self)->woken.push_back(index); }, this);
  }
};

TEST_F(Two, AKickEndsTheHaltOfTheProcessorItNames) {
  Kvm kvm{clock, 0};
  other.activity = cpu::Activity::halted;  // with interrupts off
  EXPECT_FALSE(cpu::wakeable(other));
  EXPECT_EQ(kvm.hypercall(cpu, 5, {0, 1, 0, 0}), 0u);
  EXPECT_EQ(woken, std::vector<u32>{1});
  EXPECT_TRUE(cpu::wakeable(other));
  EXPECT_EQ(cpu::service_events(other), cpu::Outcome::jumped);
  EXPECT_EQ(other.activity, cpu::Activity::running);
  EXPECT_EQ(other.attention->load(), 0u);
  EXPECT_FALSE(other.unhalted) << "it is used up";
}

TEST_F(Two, AKickThatComesFirstEndsTheNextHalt) {
  Kvm kvm{clock, 0};
  EXPECT_EQ(kvm.hypercall(cpu, 5, {0, 1, 0, 0}), 0u);
  EXPECT_EQ(cpu::service_events(other), cpu::Outcome::next);
  EXPECT_TRUE(other.unhalted);
  EXPECT_EQ(kvm.hypercall(cpu, 5, {0, 7, 0, 0}), 0u) << "nobody has this id";
  EXPECT_EQ(woken, std::vector<u32>{1});
}

struct Steal : KvmTest {
  void SetUp() override {
    KvmTest::SetUp();
    clock.instructions = false;
    cpu::mmu_create(cpu);
  }
  void TearDown() override { cpu::mmu_destroy(cpu); }
};

TEST_F(Steal, WhatAThreadDoesNotRunAndHasNotSleptIsStolen) {
  Kvm kvm{clock, 0};
  ASSERT_TRUE(kvm.msr_write(cpu, kStealTime, 0x5000 | 1));
  EXPECT_EQ(guest<StealTime>(0x5000).steal, 0u);
  std::this_thread::sleep_for(std::chrono::milliseconds{5});  // as if the host ran another
  kvm.ticked(cpu);
  const auto stolen = guest<StealTime>(0x5000);
  EXPECT_GT(stolen.steal, 1'000'000u);
  EXPECT_EQ(stolen.version % 2, 0u);
  const u64 before = __rdtsc();
  std::this_thread::sleep_for(std::chrono::milliseconds{5});
  cpu.slept_ticks += 2 * (__rdtsc() - before);  // of its own accord
  kvm.ticked(cpu);
  EXPECT_EQ(guest<StealTime>(0x5000).steal, stolen.steal);
}

TEST_F(Steal, WhoSleepsIsMarkedAndFlushesOnRequest) {
  Kvm kvm{clock, 0};
  ASSERT_TRUE(kvm.msr_write(cpu, kStealTime, 0x5000 | 1));
  kvm.halted(cpu);
  EXPECT_EQ(guest<StealTime>(0x5000).preempted, kPreempted);
  const u64 flushes = cpu.count.tlb_flushes;
  kvm.resumed(cpu);
  EXPECT_EQ(guest<StealTime>(0x5000).preempted, 0);
  EXPECT_EQ(cpu.count.tlb_flushes, flushes);
  kvm.halted(cpu);
  ram.host(Gpa{0x5010})[0] = std::byte{kPreempted | kFlushTlb};
  kvm.resumed(cpu);
  EXPECT_EQ(guest<StealTime>(0x5000).preempted, 0);
  EXPECT_EQ(cpu.count.tlb_flushes, flushes + 1);
}

TEST_F(Steal, ReservedBitsAndPlacesOutsideRam) {
  Kvm kvm{clock, 0};
  for (const u64 value : {0x5002ull, 0x5021ull, 0x503full}) EXPECT_FALSE(kvm.msr_write(cpu, kStealTime, value));
  for (const u64 value : {0x40000001ull, ~0x3full | 1}) {  // accepted, and gets nothing
    EXPECT_TRUE(kvm.msr_write(cpu, kStealTime, value));
    kvm.halted(cpu), kvm.resumed(cpu), kvm.ticked(cpu);
  }
  u64 value = 0;
  EXPECT_TRUE(kvm.msr_write(cpu, kStealTime, 0x5000));  // off
  EXPECT_TRUE(kvm.msr_read(cpu, kStealTime, &value));
  EXPECT_EQ(value, 0x5000u);
  kvm.halted(cpu);
  EXPECT_EQ(guest<StealTime>(0x5000).preempted, 0);
}

}  // namespace
}  // namespace trapline::para
