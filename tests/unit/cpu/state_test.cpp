// A vCPU and its local APIC, saved and restored.
#include "support/state_suite.h"

#include <algorithm>
#include <cstring>

#include "cpu/fpu.h"
#include "cpu/lapic.h"
#include "unit/cpu/bare_vm.h"

namespace trapline::cpu {
namespace {

using trapline::test::Random;
using trapline::test::StateCase;

struct CountingBus final : test::RecordingBus {
  void ioapic_eoi(Vcpu&, u8 vector) override { eois = eois * 31 + vector + 1; }
  u64 eois = 0;
};

const Cpuid& policy() {
  static const Cpuid made = *Cpuid::make({.cpus = 4, .para_kvm = false, .tsc_khz = 1'000'000, .features = {}});
  return made;
}

struct LapicRig {
  Clock clock;
  Vcpu cpu;
  LapicInbox inbox{};
  LapicMirror mirror{};
  CountingBus bus;
  std::optional<Lapic> apic;

  LapicRig() {
    clock.instructions = true;
    clock.tsc_khz = 1'000'000;
    cpu.clock = &clock;
    cpu.cpuid = &policy();
    cpu.bus = &bus;
    apic.emplace(cpu, inbox, mirror);
    cpu.lapic = &*apic;
    apic->connect(
        {{&*apic, &inbox, &mirror, cpu.attention}}, [](void*, u32) {}, nullptr);
  }
  Lapic& subject() { return *apic; }
  void environment(const LapicRig& other) {
    clock.virtual_base = other.clock.virtual_base.load();
    *cpu.attention = other.cpu.attention->load();
    bus.eois = other.bus.eois;
  }

  u64 post(Random& random) {
    const u64 vector = random() % 256, bit = u64{1} << vector % 64;
    if (random() % 2) inbox.level[vector / 64] |= bit;
    inbox.fixed[vector / 64] |= bit;
    inbox.extint = random() % 8;
    return 0;
  }
  u64 wait(Random& random) {
    clock.virtual_base += random() % (u64{1} << random() % 40);
    apic->on_timer(cpu.vm_tsc());
    return 0;
  }
  u64 take() {
    const auto vector = apic->pending();
    if (vector) apic->accept(*vector);
    return vector ? *vector + 1u : apic->extint_pending();
  }
  u64 access(Random& random) {
    static constexpr u32 kOffsets[] = {0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300,
                                       0x310, 0x320, 0x320, 0x350, 0x370, 0x380, 0x3e0};
    const u32 offset = kOffsets[random() % std::size(kOffsets)];
    switch (random() % 16) {
      case 0:
        return apic->msr_write(0x6e0, cpu.tsc() + random() % 1'000'000);
      case 1:
        return apic->msr_write(0x1b, 0xfee00900 | (random() & 0x400));
      case 2:
        return apic->mmio_read(static_cast<u32>(random() & 0xff0));
      case 3:
        apic->mmio_write(0xf0, 0x1ff);
        return 0;
      default:
        apic->mmio_write(offset, static_cast<u32>(random() >> random() % 64));
        return 0;
    }
  }
  auto act(Random& random) {
    const u64 what = random() % 8;
    const u64 result = what == 0 ? post(random) : what == 1 ? wait(random) : what == 2 ? take() : access(random);
    return std::tuple{result, cpu.timer_deadline, bus.eois, mirror.ldr.load(), mirror.flags.load()};
  }
};

// System instructions with random operands; rip stands still.
struct VcpuRig : test::BareVm {
  static constexpr u64 kMemory = 2 * MiB, kHole = 0xa0000;  // no RAM from there to 1 MiB
  Clock clock;
  VcpuRig() : BareVm{kMemory} {
    clock.instructions = true;
    cpu.clock = &clock;
    cpu.cpuid = &policy();
    enter_long64();
    for (u64 page = 0; page < kMemory; page += kPageSize) map64(page, page, test::pte::p | test::pte::w);
  }
  Vcpu& subject() {
    x87_park(cpu);
    return cpu;
  }
  void environment(const VcpuRig& other) {
    std::memcpy(ram.base(), other.ram.base(), kHole);
    std::memcpy(ram.base() + MiB, other.ram.base() + MiB, kMemory - MiB);
  }

  std::string act(Random& random) {
    static const std::vector<std::vector<u8>> kCode = {
        {0xfb},                          // sti
        {0xfa},                          // cli
        {0x9d},                          // popfq
        {0x8e, 0xd8},                    // mov ds, eax
        {0x8e, 0xe0},                    // mov fs, eax
        {0x0f, 0x30},                    // wrmsr
        {0x0f, 0x22, 0xd0},              // mov cr2, rax
        {0x0f, 0x22, 0xe0},              // mov cr4, rax
        {0x0f, 0x23, 0xc0},              // mov dr0, rax
        {0x0f, 0x23, 0xf8},              // mov dr7, rax
        {0x0f, 0x01, 0xf8},              // swapgs
        {0x0f, 0x01, 0x10},              // lgdt [rax]
        {0x0f, 0x01, 0x18},              // lidt [rax]
        {0x0f, 0xae, 0x08},              // fxrstor [rax]
        {0xdb, 0xe3},                    // fninit
        {0x0f, 0xae, 0x10},              // ldmxcsr [rax]
        {0xf3, 0x48, 0x0f, 0xae, 0xd0},  // wrfsbase rax
    };
    static constexpr u32 kMsrs[] = {0xc0000081, 0xc0000082, 0xc0000084, 0xc0000102, 0x174, 0x277, 0xc0000103};
    static constexpr u64 kUseful[] = {
        0, 8, 0x1000, 0x2010, 0x1f80, cr4::pae | cr4::pge | cr4::osfxsr | cr4::fsgsbase, 0x401};
    if (random() % 16 == 0) return reset(cpu, random() % 2), enter_long64_again(), "reset";
    for (u64& r : cpu.gpr) r = random() % 4 ? kUseful[random() % std::size(kUseful)] : random();
    cpu.gpr[16] = 0;
    cpu.gpr[isa::rsp] = 0x1000 + random() % 0x1000;
    cpu.gpr[isa::rcx] = kMsrs[random() % std::size(kMsrs)];
    cpu.retired += random() % 100;
    std::string seen = run(kCode[random() % kCode.size()]);
    if (!cpu.in_long64() || cpu.cpl) enter_long64_again();
    std::string bytes(16, 0);
    std::memcpy(bytes.data(), ram.base() + random() % (kHole - 16), 16);
    return seen +
           fmt::format(" {:x} {:x} {:x} {:x}", cpu.rflags(), cpu.need_read, cpu.seg[4].linear_base, cpu.linear_mask) +
           bytes;
  }
  void enter_long64_again() {
    next_table = 0x100000 + 0x1000;
    seg(Seg::cs) = flat(0xa09b);
    cpu.efer = efer::lme | efer::lma | efer::nxe;
    cpu.cr4 = cr4::pae | cr4::pge | cr4::osfxsr;
    cpu.cr3 = 0x100000;
    cpu.cpl = 0;
    paging_on();
  }
};

class CpuState : public trapline::test::StateIsWhole {};

TEST_P(CpuState, SavedAndRestored) {
  for (u64 seed = 1; seed <= 20; seed++) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    GetParam().check(seed);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, CpuState,
                         testing::Values(StateCase{"lapic", trapline::test::state_is_whole<LapicRig>},
                                         StateCase{"vcpu", trapline::test::state_is_whole<VcpuRig>}),
                         trapline::test::name_of);

TEST(VcpuState, WhatWasPostedIsThereAgain) {
  test::BareVm a{2 * MiB}, b{2 * MiB};
  attention::post_nmi(*a.cpu.attention);
  attention::post_nmi(*a.cpu.attention);
  *a.cpu.attention |= attention::sipi;
  b.cpu.restore(a.cpu.save());
  EXPECT_EQ(*b.cpu.attention & (attention::any_nmi | attention::sipi), attention::any_nmi | attention::sipi);
  EXPECT_TRUE(*b.cpu.attention & attention::interrupt) << "the local APIC is looked at";
}

}  // namespace
}  // namespace trapline::cpu
