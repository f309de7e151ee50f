// Descriptor-table registers, LAR, LSL, VERR, VERW, ARPL, LMSW.
#include <gtest/gtest.h>

#include "ring_vm.h"

namespace trapline::cpu::test {
namespace {

bool zf(const RingVm& vm) { return vm.cpu.rflags() & flag::zf; }

TEST(TableRegisters, StoreAndLoad) {
  RingVm vm{true};
  vm.cpu.gdtr = {0xffff'fe00'0000'1000, 0x7f};
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0x04, 0x25, 0x00, 0x80, 0, 0}), "ok");  // SGDT
  EXPECT_EQ(vm.at<u16>(0x8000), 0x7f);
  EXPECT_EQ(vm.get<u64>(0x8002), 0xffff'fe00'0000'1000u);
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "ok");  // LIDT
  EXPECT_EQ(vm.cpu.idtr.base, 0xffff'fe00'0000'1000u);
  EXPECT_EQ(vm.cpu.idtr.limit, 0x7f);
  vm.put<u64>(0x8002, u64{1} << 50);
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "#13(0x0)");
  EXPECT_EQ(vm.cpu.idtr.limit, 0x7f);
  vm.ring3();
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0x14, 0x25, 0x00, 0x80, 0, 0}), "#13(0x0)") << "LGDT";
}

TEST(TableRegisters, SixteenBitOperandLoads24Bits) {
  RingVm vm{false};
  vm.at<u16>(0x8000) = 0x3f;
  vm.put<u32>(0x8002, 0xab123456);
  EXPECT_EQ(vm.try_run({0x66, 0x0f, 0x01, 0x1d, 0x00, 0x80, 0, 0}), "ok");
  EXPECT_EQ(vm.cpu.idtr.base, 0x123456u);
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0x1d, 0x00, 0x80, 0, 0}), "ok");
  EXPECT_EQ(vm.cpu.idtr.base, 0xab123456u);
}

TEST(TableRegisters, UmipForbidsRing3) {
  RingVm vm{true};
  vm.ring3();
  const auto all = [&] {
    return vm.try_run({0x0f, 0x01, 0x04, 0x25, 0x00, 0x80, 0, 0}) +
           vm.try_run({0x0f, 0x01, 0x0c, 0x25, 0x00, 0x80, 0, 0}) + vm.try_run({0x0f, 0x00, 0xc0}) +
           vm.try_run({0x0f, 0x00, 0xc8}) + vm.try_run({0x0f, 0x01, 0xe0});
  };
  EXPECT_EQ(all(), "okokokokok");
  vm.cpu.cr4 |= cr4::umip;
  EXPECT_EQ(all(), "#13(0x0)#13(0x0)#13(0x0)#13(0x0)#13(0x0)");
}

TEST(TableRegisters, StrSmswWidths) {
  RingVm vm{true};
  vm.cpu.gpr[isa::rax] = ~u64{0};
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xc8}), "ok");
  EXPECT_EQ(vm.cpu.gpr[isa::rax], sel::tss);
  EXPECT_EQ(vm.try_run({0x48, 0x0f, 0x01, 0xe0}), "ok");
  EXPECT_EQ(vm.cpu.gpr[isa::rax], vm.cpu.cr0);
}

TEST(TaskRegister, LoadMarksBusy) {
  RingVm vm{false};
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x0089));
  vm.cpu.gpr[isa::rax] = sel::tss2;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "ok");
  EXPECT_EQ(vm.cpu.tr.base, RingVm::kTss2);
  EXPECT_EQ(vm.cpu.tr.limit, 0x67u);
  EXPECT_EQ(vm.cpu.tr.type(), 0xb);
  EXPECT_EQ(vm.access(sel::tss2), 0x8b);
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#13(0x48)") << "busy already";
  vm.cpu.gpr[isa::rax] = 0;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#13(0x0)");
  vm.cpu.gpr[isa::rax] = sel::tss2 | 4;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#13(0x4c)");
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x0009));
  vm.cpu.gpr[isa::rax] = sel::tss2;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#11(0x48)");
  vm.ring3();
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#13(0x0)");
}

TEST(TaskRegister, SixteenByteDescriptorInLongMode) {
  RingVm vm{true};
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x0089));
  vm.at<u64>(RingVm::kGdt + sel::tss2 + 8) = 0xffff'fe00;
  vm.cpu.gpr[isa::rax] = sel::tss2;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "ok");
  EXPECT_EQ(vm.cpu.tr.base, 0xffff'fe00'0000'0000 + RingVm::kTss2);
  vm.set(sel::tss2, RingVm::descriptor(RingVm::kTss2, 0x67, 0x0081));
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd8}), "#13(0x48)") << "no 16-bit TSS";
}

TEST(LocalTable, Load) {
  RingVm vm{false};
  vm.cpu.gpr[isa::rax] = sel::ldt;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd0}), "ok");
  EXPECT_EQ(vm.cpu.ldtr.base, RingVm::kLdt);
  EXPECT_TRUE(vm.cpu.ldtr.usable);
  vm.cpu.gpr[isa::rax] = 3;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd0}), "ok");
  EXPECT_FALSE(vm.cpu.ldtr.usable);
  vm.cpu.gpr[isa::rax] = sel::data0;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd0}), "#13(0x10)");
  vm.set(sel::ldt, RingVm::descriptor(RingVm::kLdt, 0xff, 0x0002));
  vm.cpu.gpr[isa::rax] = sel::ldt;
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xd0}), "#11(0x78)");
}

TEST(Queries, AccessRightsAndLimit) {
  RingVm vm{false};
  const auto lar = [&](u16 s) {
    vm.cpu.gpr[isa::rax] = s;
    vm.cpu.gpr[isa::rcx] = 0xdead;
    EXPECT_EQ(vm.try_run({0x0f, 0x02, 0xc8}), "ok");
    return zf(vm) ? vm.cpu.gpr[isa::rcx] : 0xdead;
  };
  const auto lsl = [&](u16 s) {
    vm.cpu.gpr[isa::rax] = s;
    vm.cpu.gpr[isa::rcx] = 0xdead;
    EXPECT_EQ(vm.try_run({0x0f, 0x03, 0xc8}), "ok");
    return zf(vm) ? vm.cpu.gpr[isa::rcx] : 0xdead;
  };
  EXPECT_EQ(lar(sel::code0), 0xcf9a00u) << "limit bits 19:16 show";
  EXPECT_EQ(lar(sel::tss), 0x008b00u);
  EXPECT_EQ(lar(0), 0xdeadu);
  EXPECT_EQ(lar(sel::end), 0xdeadu);
  EXPECT_EQ(lsl(sel::data0), 0xffffffffu);
  EXPECT_EQ(lsl(sel::small), 0xffu);
  vm.set(sel::gate, RingVm::gate_descriptor(sel::code0, 0, 0xec));
  EXPECT_EQ(lar(sel::gate), 0xec00u);
  EXPECT_EQ(lsl(sel::gate), 0xdeadu) << "a gate has no limit";
  vm.ring3();
  EXPECT_EQ(lar(sel::data0), 0xdeadu);
  EXPECT_EQ(lsl(sel::conforming), 0xffffffffu);
  EXPECT_EQ(lsl(sel::data3), 0xffffffffu);
}

TEST(Queries, LongModeKnowsFewerSystemTypes) {
  RingVm vm{true};
  vm.set(sel::task_gate, RingVm::gate_descriptor(sel::tss, 0, 0xe5));
  vm.cpu.gpr[isa::rax] = sel::task_gate;
  EXPECT_EQ(vm.try_run({0x0f, 0x02, 0xc8}), "ok");
  EXPECT_FALSE(zf(vm));
  vm.cpu.gpr[isa::rax] = sel::ldt;
  EXPECT_EQ(vm.try_run({0x0f, 0x03, 0xc8}), "ok");
  EXPECT_TRUE(zf(vm));
}

TEST(Queries, VerifyReadAndWrite) {
  RingVm vm{false};
  const auto ask = [&](u8 modrm, u16 s) {
    vm.cpu.gpr[isa::rax] = s;
    EXPECT_EQ(vm.try_run({0x0f, 0x00, modrm}), "ok");
    return zf(vm);
  };
  constexpr u8 kVerr = 0xe0, kVerw = 0xe8;
  EXPECT_TRUE(ask(kVerr, sel::code0));
  EXPECT_FALSE(ask(kVerr, sel::execute_only));
  EXPECT_FALSE(ask(kVerr, sel::tss));
  EXPECT_TRUE(ask(kVerr, sel::read_only));
  EXPECT_FALSE(ask(kVerw, sel::read_only));
  EXPECT_FALSE(ask(kVerw, sel::code0));
  EXPECT_TRUE(ask(kVerw, sel::data0));
  EXPECT_FALSE(ask(kVerw, sel::data0 | 3)) << "RPL";
  EXPECT_FALSE(ask(kVerr, 0));
}

TEST(Queries, AdjustRpl) {
  RingVm vm{false};
  vm.cpu.gpr[isa::rax] = 0xabcd0010;
  vm.cpu.gpr[isa::rcx] = 3;
  EXPECT_EQ(vm.try_run({0x63, 0xc8}), "ok");
  EXPECT_TRUE(zf(vm));
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0xabcd0013u);
  EXPECT_EQ(vm.try_run({0x63, 0xc8}), "ok");
  EXPECT_FALSE(zf(vm));
}

TEST(Queries, NotInVirtual8086Mode) {
  RingVm vm{false};
  vm.vm86();
  EXPECT_EQ(vm.try_run({0x0f, 0x02, 0xc8}), "#6(0x0)");
  EXPECT_EQ(vm.try_run({0x0f, 0x00, 0xc8}), "#6(0x0)") << "STR";
  EXPECT_EQ(vm.try_run({0x63, 0xc8}), "#6(0x0)") << "ARPL";
}

TEST(MachineStatusWord, CanSetButNotClearProtection) {
  RingVm vm{false};
  vm.cpu.gpr[isa::rax] = 0xfff0 | cr0::ts;
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0xf0}), "ok");
  EXPECT_EQ(vm.cpu.cr0, cr0::pe | cr0::ts | cr0::et | cr0::ne);
}

}  // namespace
}  // namespace trapline::cpu::test
