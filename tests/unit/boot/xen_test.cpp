// The domain builder on what a kernel's notes say.
#include "boot/xen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "cpu/mmu.h"
#include "unit/boot/images.h"

namespace trapline::boot::testing {
namespace {

using para::xen::Domain;
using para::xen::Layout;
namespace pte = para::xen::pte;

struct Nobody final : para::xen::Host {
  void wake(u32) override {}
  void power_off(cpu::Vcpu&) override {}
  void reboot(cpu::Vcpu&) override {}
  [[noreturn]] void crash(cpu::Vcpu&, const std::string& why) override { throw std::runtime_error{why}; }
};

struct XenBuilder : ::testing::Test {
  GuestMemory ram = *GuestMemory::anonymous(64 * MiB);
  cpu::Clock clock;
  Nobody host;
  Layout layout = *Layout::of(ram, 1);
  Domain domain{ram, layout, clock, 0, 1, host};
  cpu::Vcpu cpu;

  XenBuilder() {
    clock.instructions = true;
    cpu.ram = &ram;
    cpu.clock = &clock;
    cpu.hypervisor = &domain;
    cpu::mmu_create(cpu);
    domain.add_vcpu(cpu);
  }
  ~XenBuilder() override { cpu::mmu_destroy(cpu); }

  std::string error(const std::vector<XenNote>& notes) {
    const Image kernel = elf(true, 0x100000, {Segment{}}, 0, notes);
    BootRequest request;
    request.kernel = kernel;
    const auto loaded = load_xen(ram, cpu, domain, request);
    return loaded ? std::string{} : loaded.error();
  }
};

constexpr u64 kBase = 0xffffffff80000000;

TEST_F(XenBuilder, MapsTheKernelWhereItsNotesSay) {
  ASSERT_EQ(error({{XEN_ELFNOTE_VIRT_BASE, kBase}, {XEN_ELFNOTE_ENTRY, kBase + 0x100000}}), "");
  EXPECT_EQ(cpu.rip, kBase + 0x100000);
  u8 code[11];
  ASSERT_TRUE(cpu::peek(cpu, Gva{cpu.rip}, code, sizeof code));
  EXPECT_EQ((std::string{code, code + sizeof code}), "kernel code");
}

// Addresses would wrap, and the page tables that they need never be enough.
TEST_F(XenBuilder, RefusesPlacesAtTheEndOfTheAddressSpace) {
  using ::testing::HasSubstr;
  for (const u64 end : {~u64{0}, u64{0} - kPageSize, u64{0} - 64 * KiB}) {
    EXPECT_THAT(error({{XEN_ELFNOTE_VIRT_BASE, end}}), HasSubstr("the end of the address space"));
    EXPECT_THAT(error({{XEN_ELFNOTE_VIRT_BASE, kBase}, {XEN_ELFNOTE_INIT_P2M, end}}),
                HasSubstr("the end of the address space"));
  }
}

}  // namespace
}  // namespace trapline::boot::testing
