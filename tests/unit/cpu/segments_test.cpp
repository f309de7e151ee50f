#include <gtest/gtest.h>

#include "ring_vm.h"
#include "support/vendors.h"

namespace trapline::cpu::test {
namespace {

// MOV Sreg, AX. Encoding of the register: ES 0, CS 1, SS 2, DS 3, FS 4, GS 5.
std::string load(RingVm& vm, Seg s, u16 selector) {
  vm.cpu.gpr[isa::rax] = 0xffff0000 | selector;
  return vm.try_run({0x8e, static_cast<u8>(0xc0 | static_cast<u8>(s) << 3)});
}

TEST(MovToSegment, LoadsTheDescriptorAndMarksItAccessed) {
  RingVm vm{false};
  EXPECT_EQ(load(vm, Seg::es, sel::small), "ok");
  EXPECT_EQ(vm.seg(Seg::es).base, 0x8000u);
  EXPECT_EQ(vm.seg(Seg::es).limit, 0xffu);
  EXPECT_EQ(vm.seg(Seg::es).attr, 0x4093);
  EXPECT_EQ(vm.access(sel::small), 0x93);
  EXPECT_EQ(vm.seg(Seg::ds).selector, sel::data0);
}

TEST(MovToSegment, DataSegmentErrors) {
  RingVm vm{false};
  EXPECT_EQ(load(vm, Seg::ds, sel::end), "#13(0xc0)");
  EXPECT_EQ(load(vm, Seg::ds, sel::absent), "#11(0x88)");
  EXPECT_EQ(load(vm, Seg::ds, sel::execute_only), "#13(0xa0)");
  EXPECT_EQ(load(vm, Seg::ds, sel::tss), "#13(0x38)");
  EXPECT_EQ(load(vm, Seg::ds, sel::data0 | 3), "#13(0x10)") << "RPL";
  EXPECT_EQ(load(vm, Seg::ds, sel::data3), "ok") << "less privileged data";
  vm.ring3();
  EXPECT_EQ(load(vm, Seg::ds, sel::data0), "#13(0x10)") << "CPL";
  EXPECT_EQ(load(vm, Seg::ds, sel::conforming), "ok") << "conforming readable code has no level";
  EXPECT_EQ(load(vm, Seg::ds, 3), "ok");
  EXPECT_FALSE(vm.seg(Seg::ds).usable);
  u8 byte;
  EXPECT_FALSE(read(vm.cpu, Seg::ds, 0, byte));
  EXPECT_EQ(vm.cpu.fault.vector, Vector::gp);
}

TEST(MovToSegment, StackSegmentErrorsAndShadow) {
  RingVm vm{false};
  EXPECT_EQ(load(vm, Seg::ss, 0), "#13(0x0)");
  EXPECT_EQ(load(vm, Seg::ss, sel::data3), "#13(0x28)");
  EXPECT_EQ(load(vm, Seg::ss, sel::data0 | 1), "#13(0x10)");
  EXPECT_EQ(load(vm, Seg::ss, sel::read_only), "#13(0x98)");
  EXPECT_EQ(load(vm, Seg::ss, sel::absent), "#12(0x88)");
  EXPECT_FALSE(vm.cpu.interrupt_shadow);
  EXPECT_EQ(load(vm, Seg::ss, sel::small), "ok");
  EXPECT_TRUE(vm.cpu.interrupt_shadow);
  EXPECT_EQ(load(vm, Seg::cs, sel::code0), "#6(0x0)");
}

TEST(MovToSegment, NullStackIn64BitMode) {
  RingVm vm{true};
  EXPECT_EQ(load(vm, Seg::ss, 0), "ok");
  EXPECT_EQ(load(vm, Seg::ss, 1), "#13(0x0)") << "RPL is not CPL";
  vm.ring3();
  EXPECT_EQ(load(vm, Seg::ss, 3), "#13(0x0)");
}

TEST(MovToSegment, FsBaseIn64BitMode) {
  RingVm vm{true};
  vm.seg(Seg::fs).base = vm.seg(Seg::fs).linear_base = 0x7fff'1234'5678;
  vm.set(sel::small, RingVm::descriptor(0x8000, 0xff, 0x4092));
  EXPECT_EQ(load(vm, Seg::fs, sel::small), "ok");
  EXPECT_EQ(vm.seg(Seg::fs).linear_base, 0x8000u);
  EXPECT_EQ(load(vm, Seg::fs, 0), "ok");
  EXPECT_EQ(vm.seg(Seg::fs).linear_base, 0u);
  EXPECT_EQ(load(vm, Seg::ds, sel::small), "ok");
  EXPECT_EQ(vm.seg(Seg::ds).linear_base, 0u) << "DS has no base here";
}

TEST(MovToSegment, RealModeKeepsTheLimit) {
  RingVm vm{false};
  vm.cpu.cr0 = cr0::et;
  update_mode(vm.cpu);
  EXPECT_EQ(load(vm, Seg::es, 0x1234), "ok");
  EXPECT_EQ(vm.seg(Seg::es).linear_base, 0x12340u);
  EXPECT_EQ(vm.seg(Seg::es).limit, 0xffffffffu) << "unreal mode";
}

TEST(MovToSegment, LocalDescriptorTable) {
  RingVm vm{false};
  vm.cpu.ldtr = RingVm::segment(sel::ldt, RingVm::kLdt, 0xf, 0x82);
  vm.at<u64>(RingVm::kLdt + 8) = RingVm::descriptor(0x12345678, 0xfff, 0x4092);
  EXPECT_EQ(load(vm, Seg::gs, 8 | 4), "ok");
  EXPECT_EQ(vm.seg(Seg::gs).base, 0x12345678u);
  EXPECT_EQ(load(vm, Seg::gs, 0x10 | 4), "#13(0x14)");
}

TEST(MovFromSegment, Widths) {
  RingVm vm{true};
  vm.cpu.gpr[isa::rax] = ~u64{0};
  EXPECT_EQ(vm.try_run({0x8c, 0xd8}), "ok");  // MOV EAX, DS
  EXPECT_EQ(vm.cpu.gpr[isa::rax], sel::data0);
  vm.cpu.gpr[isa::rax] = ~u64{0};
  EXPECT_EQ(vm.try_run({0x66, 0x8c, 0xd8}), "ok");
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0xffff'ffff'ffff'0000u | sel::data0);
  vm.at<u64>(0x8000) = ~u64{0};
  EXPECT_EQ(vm.try_run({0x48, 0x8c, 0x1c, 0x25, 0x00, 0x80, 0, 0}), "ok");
  EXPECT_EQ(vm.at<u64>(0x8000), 0xffff'ffff'ffff'0000u | sel::data0) << "16 bits to memory";
}

TEST(PushPopSegment, SlotsAndWidths) {
  RingVm vm{false};
  for (const isa::Vendor vendor : {isa::Vendor::amd, isa::Vendor::intel}) {
    const Cpuid policy = trapline::test::policy_of(vendor);
    vm.cpu.cpuid = &policy;
    vm.cpu.gpr[isa::rsp] = RingVm::kStack0;
    vm.at<u32>(RingVm::kStack0 - 4) = 0xdeadbeef;
    EXPECT_EQ(vm.try_run({0x1e}), "ok");  // PUSH DS
    EXPECT_EQ(vm.rsp(), RingVm::kStack0 - 4);
    // Intel: a 16-bit write into the 32-bit slot.
    EXPECT_EQ(vm.stack(0), (vendor == isa::Vendor::intel ? 0xdead0000u : 0) | sel::data0);
  }
  vm.cpu.cpuid = nullptr;
  EXPECT_EQ(vm.try_run({0x07}), "ok");  // POP ES
  EXPECT_EQ(vm.rsp(), RingVm::kStack0);
  vm.at<u32>(RingVm::kStack0) = sel::absent;
  EXPECT_EQ(vm.try_run({0x07}), "#11(0x88)");
  EXPECT_EQ(vm.rsp(), RingVm::kStack0) << "a failed POP moves nothing";
  vm.at<u32>(RingVm::kStack0) = sel::small;
  EXPECT_EQ(vm.try_run({0x17}), "ok");  // POP SS
  EXPECT_TRUE(vm.cpu.interrupt_shadow);

  RingVm wide{true};
  EXPECT_EQ(wide.try_run({0x0f, 0xa0}), "ok");  // PUSH FS
  EXPECT_EQ(wide.rsp(), RingVm::kStack0 - 8);
  EXPECT_EQ(wide.stack<u64>(0), sel::data0);
  EXPECT_EQ(wide.try_run({0x0f, 0xa9}), "ok");  // POP GS
  EXPECT_EQ(wide.rsp(), RingVm::kStack0);
}

TEST(LoadFarPointer, SegmentThenRegister) {
  RingVm vm{false};
  vm.at<u32>(0x8000) = 0x12345678;
  vm.at<u16>(0x8004) = sel::small;
  EXPECT_EQ(vm.try_run({0xc4, 0x1d, 0x00, 0x80, 0, 0}), "ok");  // LES EBX, [8000]
  EXPECT_EQ(vm.cpu.gpr[isa::rbx], 0x12345678u);
  EXPECT_EQ(vm.selector(Seg::es), sel::small);
  vm.at<u16>(0x8004) = sel::absent;
  vm.cpu.gpr[isa::rbx] = 7;
  EXPECT_EQ(vm.try_run({0xc5, 0x1d, 0x00, 0x80, 0, 0}), "#11(0x88)");
  EXPECT_EQ(vm.cpu.gpr[isa::rbx], 7u);
  EXPECT_EQ(vm.try_run({0x0f, 0xb2, 0x1d, 0x00, 0x80, 0, 0}), "#12(0x88)") << "LSS";
}

TEST(FsGsBase, SwapgsAndFsgsbase) {
  RingVm vm{true};
  vm.cpu.msr.kernel_gs_base = 0xffff'8880'0000'0000;
  vm.seg(Seg::gs).base = vm.seg(Seg::gs).linear_base = 0x1000;
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0xf8}), "ok");
  EXPECT_EQ(vm.seg(Seg::gs).linear_base, 0xffff'8880'0000'0000u);
  EXPECT_EQ(vm.cpu.msr.kernel_gs_base, 0x1000u);
  EXPECT_EQ(vm.try_run({0xf3, 0x48, 0x0f, 0xae, 0xd0}), "#6(0x0)") << "CR4.FSGSBASE is clear";
  vm.cpu.cr4 |= cr4::fsgsbase;
  vm.ring3();
  vm.cpu.gpr[isa::rax] = 0x7fff'1234'5678;
  EXPECT_EQ(vm.try_run({0xf3, 0x48, 0x0f, 0xae, 0xd0}), "ok");  // WRFSBASE RAX
  EXPECT_EQ(vm.seg(Seg::fs).linear_base, 0x7fff'1234'5678u);
  EXPECT_EQ(vm.try_run({0xf3, 0x0f, 0xae, 0xc1}), "ok");  // RDFSBASE ECX
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 0x1234'5678u);
  vm.cpu.gpr[isa::rax] = u64{1} << 47;
  EXPECT_EQ(vm.try_run({0xf3, 0x48, 0x0f, 0xae, 0xd8}), "#13(0x0)");
  EXPECT_EQ(vm.try_run({0x0f, 0x01, 0xf8}), "#13(0x0)") << "SWAPGS in ring 3";
}

}  // namespace
}  // namespace trapline::cpu::test
