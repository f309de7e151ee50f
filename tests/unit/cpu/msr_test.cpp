#include "cpu/msr_memory_type.h"
#include "support/vendors.h"
#include "unit/cpu/platform_fixture.h"

namespace trapline::cpu {
namespace {

constexpr u32 kTsc = 0x10, kTscAdjust = 0x3b, kEfer = 0xc0000080, kLstar = 0xc0000082, kFsBase = 0xc0000100,
              kTscAux = 0xc0000103;

using MsrTest = PlatformTest;

TEST_F(MsrTest, RdmsrAndWrmsrMoveHalvesAndCheckPrivilege) {
  const isa::Insn none{};
  cpu.gpr[isa::rcx] = 0xffffffff'c0000082;  // only ECX counts
  cpu.gpr[isa::rax] = 0x1234'81000000;
  cpu.gpr[isa::rdx] = 0x5678'ffffffff;
  ASSERT_EQ(sem::wrmsr(cpu, none), Outcome::next);
  EXPECT_EQ(cpu.msr.lstar, 0xffffffff81000000);
  ASSERT_EQ(sem::rdmsr(cpu, none), Outcome::next);
  EXPECT_EQ(cpu.gpr[isa::rax], 0x81000000u);
  EXPECT_EQ(cpu.gpr[isa::rdx], 0xffffffffu);
  cpu.cpl = 3;
  EXPECT_EQ(sem::rdmsr(cpu, none), Outcome::fault);
  EXPECT_EQ(cpu.fault.vector, Vector::gp);
  EXPECT_EQ(sem::wrmsr(cpu, none), Outcome::fault);
  cpu.cpl = 0;
  cpu.gpr[isa::rcx] = 0x12345678;
  EXPECT_EQ(sem::rdmsr(cpu, none), Outcome::fault);
  EXPECT_EQ(cpu.fault.error, 0u);
  EXPECT_EQ(sem::wrmsr(cpu, none), Outcome::fault);
}

TEST_F(MsrTest, Efer) {
  EXPECT_TRUE(wr(kEfer, efer::sce | efer::nxe));
  EXPECT_FALSE(wr(kEfer, 1u << 12)) << "SVME";
  EXPECT_FALSE(wr(kEfer, 2));
  EXPECT_TRUE(wr(kEfer, efer::lma | efer::lme));
  EXPECT_EQ(rd(kEfer), efer::lme) << "LMA is not writable";
  cpu.cr0 |= cr0::pg;
  cpu.efer |= efer::lma;
  EXPECT_FALSE(wr(kEfer, 0)) << "LME may not change under paging";
  EXPECT_TRUE(wr(kEfer, efer::lme));
  EXPECT_EQ(rd(kEfer), efer::lme | efer::lma);
}

TEST_F(MsrTest, AddressesMustBeCanonical) {
  for (u32 index : {kLstar, 0xc0000083u, kFsBase, 0xc0000101u, 0xc0000102u, 0x175u, 0x176u}) {
    EXPECT_TRUE(wr(index, 0xffff800000000000)) << index;
    EXPECT_EQ(rd(index), 0xffff800000000000) << index;
    EXPECT_FALSE(wr(index, 0x0000800000000000)) << index;
    EXPECT_EQ(rd(index), 0xffff800000000000) << index;
  }
  EXPECT_EQ(cpu.segment(Seg::fs).base, 0xffff800000000000);
}

TEST_F(MsrTest, TscAndTscAdjustMoveTogether) {
  clock.virtual_base = 1000;
  EXPECT_EQ(rd(kTsc), 1000u);
  EXPECT_TRUE(wr(kTsc, 400));
  EXPECT_EQ(rd(kTsc), 400u);
  EXPECT_EQ(rd(kTscAdjust), static_cast<u64>(-600));
  EXPECT_TRUE(wr(kTscAdjust, 5));
  EXPECT_EQ(rd(kTsc), 1005u);
  clock.virtual_base = 1100;
  EXPECT_EQ(rd(kTsc), 1105u);
  EXPECT_FALSE(wr(kTscAux, u64{1} << 32));
  EXPECT_TRUE(wr(kTscAux, 7));
  EXPECT_EQ(rd(kTscAux), 7u);
}

TEST_F(MsrTest, FeaturesDecideWhatExists) {
  EXPECT_TRUE(rd(0x6e0));
  use_features("-tsc_deadline_timer,-tsc_adjust,-lm,-rdtscp,-mtrr,-pat,-xsaves");
  for (u32 index : {0x6e0u, kTscAdjust, kLstar, kFsBase, kTscAux, 0x277u, 0xfeu, 0x200u, 0xda0u}) {
    EXPECT_FALSE(rd(index)) << index;
    EXPECT_FALSE(wr(index, 0)) << index;
  }
  EXPECT_FALSE(wr(kEfer, efer::lme));
}

TEST_F(MsrTest, Pat) {
  EXPECT_EQ(rd(0x277), 0x0007040600070406u);
  EXPECT_TRUE(wr(0x277, 0x0407050600070106));
  EXPECT_FALSE(wr(0x277, 0x0007040600070402)) << "type 2 is reserved";
  EXPECT_FALSE(wr(0x277, u64{8} << 56));
  EXPECT_EQ(rd(0x277), 0x0407050600070106u);
}

TEST_F(MsrTest, Mtrrs) {
  EXPECT_EQ(rd(0xfe), 0x508u);
  EXPECT_FALSE(wr(0xfe, 0));
  EXPECT_TRUE(wr(0x2ff, 0xc06));
  EXPECT_FALSE(wr(0x2ff, 0xc07)) << "UC- is for the PAT alone";
  EXPECT_FALSE(wr(0x2ff, 0x100));
  EXPECT_TRUE(wr(0x20e, 0xc0000006)) << "base 7";
  EXPECT_TRUE(wr(0x20f, (u64{1} << cpuid->physical_bits()) - (u64{1} << 30) + 0x800));
  EXPECT_EQ(rd(0x20e), 0xc0000006u);
  EXPECT_FALSE(wr(0x20e, u64{1} << 52));
  EXPECT_FALSE(wr(0x20e, 2));
  EXPECT_FALSE(wr(0x20f, 0x400));
  EXPECT_FALSE(rd(0x210)) << "eight pairs";
  EXPECT_TRUE(wr(0x26f, 0x0605040100060606));
  EXPECT_EQ(rd(0x26f), 0x0605040100060606u);
  EXPECT_FALSE(wr(0x250, 0x0300000000000000));
}

TEST_F(MsrTest, FirmwareMtrrsCouldHaveBeenWritten) {
  set_up_mtrrs_as_firmware(cpu);
  EXPECT_EQ(rd(0x2ff), 0xc06u);
  for (u32 index : {0x2ffu, 0x200u, 0x201u, 0x250u, 0x259u, 0x26fu}) EXPECT_TRUE(wr(index, *rd(index))) << index;
  EXPECT_EQ(*rd(0x201) & 0xfffff000, 0xc0000000u);
  EXPECT_EQ(rd(0x259), 0u);
}

// Its registers lie over RAM at once, and RAM is back at once: the TLB must not remember either.
TEST_F(MsrTest, TheApicMovesOntoRamAndAway) {
  for (Segment& s : cpu.seg) s.usable = true, s.attr = 0xc093, s.limit = 0xffffffff;
  cpu.cr0 |= cr0::pe;
  update_mode(cpu);
  const auto read_at = [&](u64 address) {
    u32 value = 0;
    EXPECT_TRUE(read(cpu, Seg::ds, address, value));
    return value;
  };
  constexpr u64 kPlace = 0x200000, kVersion = kPlace + 0x30;
  ASSERT_TRUE(write(cpu, Seg::ds, kVersion, u32{0xabcdef}));
  EXPECT_EQ(read_at(kVersion), 0xabcdefu);
  ASSERT_TRUE(wr(0x1b, kPlace | 0x900));
  EXPECT_EQ(read_at(kVersion) & 0xff, 0x14u) << "the APIC's version";
  ASSERT_TRUE(wr(0x1b, 0xfee00900));
  EXPECT_EQ(read_at(kVersion), 0xabcdefu);
}

TEST_F(MsrTest, MachineChecksAreQuiet) {
  const u64 banks = *rd(0x179) & 0xff;
  for (u32 bank = 0; bank < banks; bank++) {
    EXPECT_TRUE(wr(0x400 + bank * 4, ~u64{0}));
    EXPECT_EQ(rd(0x400 + bank * 4), ~u64{0});
    EXPECT_EQ(rd(0x401 + bank * 4), 0u);
    EXPECT_TRUE(wr(0x401 + bank * 4, 0));
    EXPECT_FALSE(wr(0x401 + bank * 4, 1));
  }
  EXPECT_FALSE(rd(static_cast<u32>(0x400 + banks * 4)));
  EXPECT_TRUE(wr(0x17b, ~u64{0}));
  EXPECT_FALSE(wr(0x17b, 5));
  EXPECT_FALSE(wr(0x17a, 8));
}

// SDM Vol. 3B 15.3.2.3: writing other than 0 is #GP; AMD's banks hold what is written.
TEST_F(MsrTest, MachineCheckAddressesByVendor) {
  for (const isa::Vendor vendor : trapline::test::kVendors) {
    cpuid = trapline::test::policy_of(vendor);
    for (const u32 index : {0x402u, 0x403u, 0x40eu, 0x40fu}) {
      EXPECT_EQ(wr(index, 0x1234), vendor == isa::Vendor::amd) << index;
      EXPECT_EQ(rd(index), vendor == isa::Vendor::amd ? 0x1234u : 0u) << index;
      EXPECT_TRUE(wr(index, 0));
      EXPECT_EQ(rd(index), 0u);
    }
    EXPECT_FALSE(wr(0x401, 1)) << "a status";
  }
}

TEST_F(MsrTest, WhatEveryAmdProcessorHas) {
  for (const isa::Vendor vendor : trapline::test::kVendors) {
    cpuid = trapline::test::policy_of(vendor);
    const bool amd = vendor == isa::Vendor::amd;
    for (const u32 index : {0xc0010000u, 0xc0010003u, 0xc0010004u, 0xc0010007u, 0xc001102eu}) {
      EXPECT_EQ(wr(index, 0x530076), amd) << index;
      EXPECT_EQ(rd(index), amd ? std::optional<u64>{0} : std::nullopt) << index;
    }
    EXPECT_FALSE(rd(0xc0010008));
    for (const u32 index : {0xc0010140u, 0xc0010141u})
      EXPECT_EQ(rd(index), amd ? std::optional<u64>{0} : std::nullopt) << "OSVW";
  }
  cpuid = trapline::test::policy_of(isa::Vendor::amd, {.features = "-osvw"});
  EXPECT_FALSE(rd(0xc0010140));
}

TEST_F(MsrTest, FastFxsaveIsSwitchedByEfer) {
  cpuid = trapline::test::policy_of(isa::Vendor::amd);
  EXPECT_TRUE(wr(0xc0000080, efer::ffxsr));
  cpuid = trapline::test::policy_of(isa::Vendor::amd, {.features = "-fxsr_opt"});
  EXPECT_FALSE(wr(0xc0000080, efer::ffxsr));
  cpuid = trapline::test::policy_of(isa::Vendor::intel);
  EXPECT_FALSE(wr(0xc0000080, efer::ffxsr));
}

TEST_F(MsrTest, WhatKernelsReadWithoutAHandler) {
  for (u32 index : {0x8bu, 0x1a0u, 0x34u, 0x2au, 0x0u, 0x1u, 0x1d9u, 0x17au, 0x174u}) EXPECT_TRUE(rd(index)) << index;
  EXPECT_TRUE(wr(0x8b, 0));
  EXPECT_NE(rd(0x8b), 0u);
  EXPECT_TRUE(wr(0x1d9, 3));
  EXPECT_EQ(rd(0x1d9), 0u) << "LBR and BTF have no effect and say so";
  EXPECT_FALSE(wr(0x1d9, 1u << 16));
  for (u32 index : {0x186u, 0xc1u, 0x38fu, 0xe7u, 0x480u, 0x570u, 0x6a0u, 0x122u}) EXPECT_FALSE(rd(index)) << index;
  if (!cpuid->intel()) return;
  EXPECT_EQ(rd(0x3a), 1u);
  EXPECT_FALSE(wr(0x3a, 5)) << "locked";
  EXPECT_EQ(rd(0x35), 0x20002u);
  EXPECT_EQ(*rd(0xce) >> 8 & 0xff, 10u);
  EXPECT_EQ(rd(0x10a), arch_cap::offered);
  EXPECT_TRUE(wr(0x48, 1));
  EXPECT_TRUE(wr(0x48, 0x401)) << "BHI_DIS_S";
  EXPECT_FALSE(wr(0x48, 0x800));
  EXPECT_TRUE(wr(0x49, 1));
  EXPECT_FALSE(rd(0x49)) << "write-only";
  EXPECT_TRUE(wr(0x10b, 1));
}

TEST_F(MsrTest, XssOffersNothing) {
  EXPECT_EQ(rd(0xda0), 0u);
  EXPECT_TRUE(wr(0xda0, 0));
  EXPECT_FALSE(wr(0xda0, 1u << 8));
}

TEST_F(MsrTest, NoIndexAndNoValueDoesHarm) {
  const u64 values[] = {0, 1, ~u64{0}, 0x8000000000000000, 0x0000800000000000, 0x0606060606060606};
  for (u32 base : {0u, 0x40000000u, 0x4b564d00u, 0xc0000000u, 0xc0010000u, 0xc0011000u, 0xfffff000u})
    for (u32 i = 0; i < 0x1000; i++) {
      rd(base + i);
      for (u64 v : values) wr(base + i, v);
    }
}

}  // namespace
}  // namespace trapline::cpu
