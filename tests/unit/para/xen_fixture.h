// A Xen PV guest without code: a domain whose kernel maps its first frames, and a vCPU in its kernel mode.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>

#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"

namespace trapline::para::xen {

struct Crash : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TestHost final : Host {
  int power_offs = 0, reboots = 0;
  std::vector<u32> woken;
  void wake(u32 vcpu) override { woken.push_back(vcpu); }
  void power_off(cpu::Vcpu&) override { power_offs++; }
  void reboot(cpu::Vcpu&) override { reboots++; }
  [[noreturn]] void crash(cpu::Vcpu&, const std::string& why) override { throw Crash{why}; }
};

// Pseudo-physical frame n is mapped at n * 4 KiB, for the first 512; writable but for the four tables that do it.
struct XenTest : testing::Test {
  static constexpr u64 kL4 = 1, kL3 = 2, kL2 = 3, kL1 = 4, kStore = 5, kConsole = 6, kScratch = 16;
  static constexpr u64 kBits = pte::present | pte::writable | pte::user | pte::accessed | pte::dirty;

  cpu::Clock clock;
  GuestMemory ram = *GuestMemory::anonymous(16 * MiB);
  TestHost host;
  static constexpr u64 kBackendFrames = 2 * kDiskFrames + kNetworkFrames;
  Layout layout = *Layout::of(ram, 2, kBackendFrames);
  Domain domain{ram, layout, clock, 0, 2, host};
  cpu::CodeMap code{ram};
  cpu::Vcpu cpu;

  void SetUp() override {
    clock.instructions = true;
    cpu.ram = &ram;
    cpu.clock = &clock;
    cpu.hypervisor = &domain;
    cpu.code = &code;
    code.add_vcpu(&cpu);
    cpu::mmu_create(cpu);
    domain.add_vcpu(cpu);
    domain.prepare();
    entry(kL4, 0) = at(kL3) | kBits;
    entry(kL3, 0) = at(kL2) | kBits;
    entry(kL2, 0) = at(kL1) | kBits;
    for (u64 pfn = 1; pfn < kEntries; pfn++)
      entry(kL1, pfn) = at(pfn) | (pfn >= kL4 && pfn <= kL1 ? kBits & ~pte::writable : kBits);
    const auto begun =
        domain.begin(cpu, {frame(kL4), Gva{}, Gva{0x20000}, Gva{0x30000}, frame(kStore), frame(kConsole)});
    ASSERT_TRUE(begun) << begun.error();
  }
  void TearDown() override { cpu::mmu_destroy(cpu); }

  Mfn frame(u64 pfn) const { return layout.mfn(Pfn{pfn}); }
  u64 mfn(u64 pfn) const { return frame(pfn).raw; }  // as a hypercall names it
  u64 at(u64 pfn) const { return mfn(pfn) * kPageSize; }
  u64& entry(u64 table, u64 index) { return domain.frames().table(frame(table))[index]; }
  static u64 linear(u64 pfn) { return pfn * kPageSize; }

  // A hypercall as the guest's kernel makes it: what `argument` is goes to its scratch page.
  Status call(u64 number, const Domain::Arguments& a) {
    cpu.gpr[isa::rax] = number;
    cpu.gpr[isa::rdi] = a[0], cpu.gpr[isa::rsi] = a[1], cpu.gpr[isa::rdx] = a[2];
    cpu.gpr[isa::r10] = a[3], cpu.gpr[isa::r8] = a[4], cpu.gpr[isa::r9] = a[5];
    static_cast<void>(domain.syscall(cpu, 0x30002));
    return static_cast<Status>(cpu.gpr[isa::rax]);
  }
  template <class T>
  u64 given(const T& argument, u64 offset = 0) {
    std::memcpy(ram.host(Gpa{at(kScratch) + offset}), &argument, sizeof argument);
    return linear(kScratch) + offset;
  }
  template <class T>
  T answered(u64 offset = 0) {
    T value;
    std::memcpy(&value, ram.host(Gpa{at(kScratch) + offset}), sizeof value);
    return value;
  }
  Status update(u64 machine, u64 value, u64 command = MMU_NORMAL_PT_UPDATE) {
    const mmu_update_t request{machine | command, value};
    return call(__HYPERVISOR_mmu_update, {given(request), 1, 0, DOMID_SELF});
  }
  Status extended(u32 command, u64 argument) {
    mmuext_op_t op{};
    op.cmd = command;
    op.arg1.mfn = argument;
    return call(__HYPERVISOR_mmuext_op, {given(op), 1, 0, DOMID_SELF});
  }
  // What a store of the kernel's own to `where` comes to.
  bool stores(u64 where, u64 value) { return cpu::write_slow(cpu, cpu::Seg::ds, Gva{where}, &value, sizeof value); }
};

}  // namespace trapline::para::xen
