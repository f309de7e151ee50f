// One vCPU with a policy, a local APIC, RAM and a clock that stands still: for tests of instructions that need no
// memory operand.
#pragma once

#include <gtest/gtest.h>

#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

struct NoDevices : Bus {
  u32 port_read(Vcpu&, u16, unsigned) override { return ~0u; }
  void port_write(Vcpu&, u16, unsigned, u32) override {}
  u64 mmio_read(Vcpu&, Gpa, unsigned) override { return ~u64{0}; }
  void mmio_write(Vcpu&, Gpa, unsigned, u64) override {}
  u8 pic_acknowledge(Vcpu&) override { return 0; }
  void ioapic_eoi(Vcpu&, u8) override {}
};

struct PlatformTest : testing::Test {
  Clock clock;
  std::optional<Cpuid> cpuid;
  GuestMemory ram;
  NoDevices bus;
  Vcpu cpu;
  LapicInbox inbox{};
  LapicMirror mirror{};
  std::optional<Lapic> lapic;

  void SetUp() override {
    clock.instructions = true;
    ram = *GuestMemory::anonymous(4 * MiB);
    use_features("");
    cpu.clock = &clock;
    cpu.ram = &ram;
    cpu.ram_base = ram.base();
    cpu.bus = &bus;
    mmu_create(cpu);
    lapic.emplace(cpu, inbox, mirror);
    cpu.lapic = &*lapic;
  }
  void TearDown() override { mmu_destroy(cpu); }

  void use_features(const char* features) {
    auto made = Cpuid::make({.cpus = 2, .para_kvm = true, .tsc_khz = 1'000'000, .features = features});
    ASSERT_TRUE(made) << made.error();
    cpuid = *made;
    cpu.cpuid = &*cpuid;
  }
  std::optional<u64> rd(u32 index) {
    u64 v;
    return msr_read(cpu, index, &v) ? std::optional{v} : std::nullopt;
  }
  bool wr(u32 index, u64 value) { return msr_write(cpu, index, value); }
  isa::Insn decode(std::initializer_list<u8> bytes) {
    isa::Insn insn;
    EXPECT_EQ(isa::decode(bytes.begin(), bytes.size(), isa::CodeSize::bits64, isa::host_vendor(), insn),
              isa::DecodeStatus::ok);
    return insn;
  }
};

}  // namespace trapline::cpu
