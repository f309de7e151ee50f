// Sensitive instructions that translated code executes in line, with real time: they are right, and what they depend on
// is looked at when they run.
#include <x86intrin.h>

#include <cstring>

#include "cpu/lapic.h"
#include "engine/registry.h"
#include "engine/vector/vector_unit.h"
#include "interpret_vm.h"
#include "support/engines.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

struct Inlined : testing::Test {
  InterpretVm vm{Start::long64};
  void SetUp() override {
    SKIP_UNLESS_OFFERED("translate");
    vm.clock.instructions = false;
    vm.cpu.cr4 |= cr4::fsgsbase;
    vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  }
  // Everything may be reached in ring 3, where the code goes on; its HLT ends in vector 13, whose handler has a stack.
  void drop_to_ring3() {
    for (u64 entry = 0; entry < 512; entry++)
      for (const u64 table : {u64{0}, u64{0x1000}, u64{0x2000}, u64{0x3000}})
        vm.at<u64>(vm.kTables + table + entry * 8) |= 4;
    tlb_flush_all(vm.cpu);
    vm.cpu.tr.base = vm.kData + 0x1000, vm.cpu.tr.limit = 0x67, vm.cpu.tr.usable = true;
    vm.put<u64>(vm.cpu.tr.base + 4, vm.kStack - 0x1000);
    vm.cpu.cpl = 3;
    vm.seg(Seg::cs).selector |= 3, vm.seg(Seg::cs).attr |= 0x60;
    vm.seg(Seg::ss).selector |= 3, vm.seg(Seg::ss).attr |= 0x60;
    update_mode(vm.cpu);
  }
  u64 fault_rip() { return vm.at<u64>(vm.cpu.gpr[isa::rsp] + 8); }
};

TEST_F(Inlined, TheTscIsTheHostsAndWhatIsAheadOfIt) {
  vm.clock.tsc_offset = u64{1} << 40;
  vm.clock.guest_origin = 1000;
  vm.cpu.msr.tsc_adjust = u64{5} << 33;
  vm.cpu.msr.tsc_aux = 0xffffffff'00000007;
  const u64 ahead = vm.cpu.tsc() - __rdtsc();
  // rdtsc; mov r8, rax; mov r9, rdx; rdtscp; hlt
  const u64 before = __rdtsc();
  vm.reg(isa::rcx) = ~u64{0};
  EXPECT_EQ(vm.run({0x0F, 0x31, 0x49, 0x89, 0xC0, 0x49, 0x89, 0xD1, 0x0F, 0x01, 0xF9, 0xF4}), Exit::halted);
  const u64 after = __rdtsc(), slack = u64{1} << 32;  // of the two readings above
  EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
  EXPECT_LT(vm.reg(isa::r8), u64{1} << 32);
  EXPECT_LT(vm.reg(isa::rax), u64{1} << 32);
  EXPECT_EQ(vm.reg(isa::rcx), 7u);
  const u64 first = vm.reg(isa::r9) << 32 | vm.reg(isa::r8), second = vm.reg(isa::rdx) << 32 | vm.reg(isa::rax);
  EXPECT_GE(first - ahead + slack, before);
  EXPECT_GT(second, first);
  EXPECT_LE(second - ahead, after + slack);
}

TEST_F(Inlined, CarryStaysAndTheFlagsOfOthers) {
  // stc; rdtsc; rdfsbase rax; wrgsbase rsi; setc bl; hlt
  EXPECT_EQ(
      vm.run({0xF9, 0x0F, 0x31, 0xF3, 0x48, 0x0F, 0xAE, 0xC0, 0xF3, 0x48, 0x0F, 0xAE, 0xDE, 0x0F, 0x92, 0xC3, 0xF4}),
      Exit::halted);
  EXPECT_EQ(vm.reg(isa::rbx) & 0xff, 1u);
}

TEST_F(Inlined, TsdCountsInRing3OnlyAndWhenTheInstructionRuns) {
  drop_to_ring3();
  EXPECT_EQ(vm.run({0x0F, 0x31, 0xF4}), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(fault_rip(), vm.kCode + 2) << "at HLT";
  vm.cpu.cr4 |= cr4::tsd;
  vm.cpu.cpl = 0;
  drop_to_ring3();
  vm.cpu.activity = Activity::running;
  vm.cpu.rip = vm.kCode;
  EXPECT_EQ(vm.run(), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(fault_rip(), vm.kCode) << "at RDTSC";
}

TEST_F(Inlined, SegmentBases) {
  vm.seg(Seg::fs).base = vm.seg(Seg::fs).linear_base = 0x1234'5678'9abc;
  vm.reg(isa::rsi) = 0xffff'8000'0000'1000;
  vm.reg(isa::r11) = 0xaaaa'bbbb'cccc'dddd;
  vm.at<u64>(vm.kData) = 42;
  vm.reg(isa::rdi) = vm.kData;
  EXPECT_EQ(vm.run({0xF3, 0x48, 0x0F, 0xAE, 0xC0,              // rdfsbase rax
                    0xF3, 0x41, 0x0F, 0xAE, 0xC2,              // rdfsbase r10d
                    0xF3, 0x48, 0x0F, 0xAE, 0xDE,              // wrgsbase rsi
                    0xF3, 0x49, 0x0F, 0xAE, 0xCB,              // rdgsbase r11
                    0xF3, 0x48, 0x0F, 0xAE, 0xD7,              // wrfsbase rdi
                    0x64, 0x48, 0x8B, 0x1C, 0x25, 0, 0, 0, 0,  // mov rbx, fs:[0]
                    0xF4}),
            Exit::halted);
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.reg(isa::rax), 0x1234'5678'9abcu);
  EXPECT_EQ(vm.reg(isa::r10), 0x5678'9abcu);
  EXPECT_EQ(vm.reg(isa::r11), 0xffff'8000'0000'1000u);
  EXPECT_EQ(vm.seg(Seg::gs).base, 0xffff'8000'0000'1000u);
  EXPECT_EQ(vm.reg(isa::rbx), 42u);
}

TEST_F(Inlined, ABaseThatIsNotCanonicalIsRefused) {
  for (const u64 base : {u64{1} << 47, u64{1} << 63, 0xffff'7fff'ffff'ffffu}) {
    vm.reg(isa::rsi) = base;
    vm.seg(Seg::gs).base = vm.seg(Seg::gs).linear_base = 0x77;
    vm.cpu.activity = Activity::running;
    vm.cpu.rip = vm.kCode;
    EXPECT_EQ(vm.run({0xF3, 0x48, 0x0F, 0xAE, 0xDE, 0xF4}), Exit::halted);
    EXPECT_EQ(vm.vector(), 13) << std::hex << base;
    EXPECT_EQ(vm.seg(Seg::gs).base, 0x77u);
  }
}

// The same bytes under another CR4.
TEST_F(Inlined, BasesAreUndefinedWithoutFsgsbase) {
  const auto run = [&] {
    vm.cpu.activity = Activity::running;
    vm.cpu.rip = vm.kCode;
    EXPECT_EQ(vm.run({0xF3, 0x48, 0x0F, 0xAE, 0xC0, 0xF4}), Exit::halted);
    return vm.vector();
  };
  EXPECT_EQ(run(), -1);
  vm.cpu.cr4 &= ~u64{cr4::fsgsbase};
  EXPECT_EQ(run(), 6);
  vm.cpu.cr4 |= cr4::fsgsbase;
  EXPECT_EQ(run(), -1);
}

TEST_F(Inlined, SixteenBitsOfASelector) {
  vm.seg(Seg::ds).selector = 0x2b;
  vm.reg(isa::rax) = vm.reg(isa::r10) = 0x1111'2222'3333'4444;
  EXPECT_EQ(vm.run({0x66, 0x8C, 0xD8, 0x66, 0x41, 0x8C, 0xDA, 0xF4}), Exit::halted);  // mov ax, ds; mov r10w, ds
  EXPECT_EQ(vm.reg(isa::rax), 0x1111'2222'3333'002bu);
  EXPECT_EQ(vm.reg(isa::r10), 0x1111'2222'3333'002bu);
}

// From ring to ring of 64-bit code, and what the segments are then.
TEST_F(Inlined, SyscallAndSysretThereAndBack) {
  drop_to_ring3();
  vm.cpu.efer |= efer::sce;
  vm.cpu.msr.star = u64{0x13} << 48 | u64{8} << 32;
  vm.cpu.msr.lstar = vm.kCode + 0x100;
  vm.cpu.msr.fmask = 0x40200;
  vm.put(vm.kCode + 0x100, {0x8C, 0xCB, 0x8C, 0xD5, 0x48, 0x0F, 0x07});  // mov ebx, cs; mov ebp, ss; sysretq
  EXPECT_EQ(vm.run({0xF9, 0x0F, 0x05, 0x8C, 0xCE, 0x8C, 0xD7, 0xF4}), Exit::halted);  // stc; syscall; mov esi, cs; ...
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(fault_rip(), vm.kCode + 7);
  EXPECT_EQ(vm.reg(isa::rbx), 8u);
  EXPECT_EQ(vm.reg(isa::rbp), 16u);
  EXPECT_EQ(vm.reg(isa::rsi), 0x23u);
  EXPECT_EQ(vm.reg(isa::rdi), 0x1bu);
  EXPECT_EQ(vm.reg(isa::rcx), vm.kCode + 3);
  EXPECT_EQ(vm.reg(isa::r11) & 1, 1u);
}

// The image of a program that may change neither IF nor IOPL, and of a kernel that changes both.
TEST_F(Inlined, PopfTakesWhatTheRingMayChange) {
  const std::initializer_list<int> code = {0x57, 0x9D, 0x9C, 0x58, 0xF4};  // push rdi; popfq; pushfq; pop rax; hlt
  vm.cpu.sys_flags |= flag::if_;
  vm.reg(isa::rdi) = 0x247cd7;  // ID AC NT OF DF SF ZF AF PF CF, IOPL 3, no IF
  EXPECT_EQ(vm.run(code), Exit::halted);
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.reg(isa::rax), 0x247cd7u);
  vm.reg(isa::rdi) = 0x202;
  vm.cpu.activity = Activity::running;
  vm.cpu.rip = vm.kCode;
  EXPECT_EQ(vm.run(code), Exit::halted);
  EXPECT_EQ(vm.reg(isa::rax), 0x202u);
  drop_to_ring3();
  vm.reg(isa::rdi) = 0x3cd7;
  vm.cpu.activity = Activity::running;
  vm.cpu.rip = vm.kCode;
  EXPECT_EQ(vm.run(code), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(fault_rip(), vm.kCode + 4) << "at HLT";
  EXPECT_EQ(vm.reg(isa::rax), 0xed7u);
}

// Their upper halves are no part of the address.
TEST(InlinedIn32Bits, VectorAndX87OperandsBy16BitAddresses) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::flat32};
  vm.cpu.cr0 |= cr0::ne;
  vm.cpu.cr4 |= cr4::osfxsr;
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  vm.at<u64>(0x7000) = 0x1122334455667788;
  vm.reg(isa::rbx) = 0x207000;
  // fninit; movq xmm0, [bx]; fild qword [bx]; movq [bx + 8], xmm0; fistp qword [bx + 16]
  EXPECT_EQ(vm.run({0xDB, 0xE3, 0x67, 0xF3, 0x0F, 0x7E, 0x07, 0x67, 0xDF, 0x2F, 0x67, 0x66, 0x0F, 0xD6, 0x47, 0x08,  //
                    0x67, 0xDF, 0x7F, 0x10, 0xF4}),
            Exit::halted);
  x87_park(vm.cpu);
  EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
  EXPECT_EQ(vm.at<u64>(0x7008), 0x1122334455667788u);
  EXPECT_EQ(vm.at<u64>(0x7010), 0x1122334455667788u);
}

TEST(InlinedIn32Bits, UpperRegistersStay) {
  SKIP_UNLESS_OFFERED("translate");
  for (const bool all : {false, true}) {
    InterpretVm vm{Start::flat32};
    vm.cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
    vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
    if ((vm.cpu.xcr0 & 6) != 6) GTEST_SKIP() << "no AVX";
    vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
    for (auto& zmm : vm.cpu.vec.zmm) std::memset(zmm, 0x77, 32);
    // vorps xmm1, xmm1, xmm1; vzeroupper or vzeroall; hlt
    EXPECT_EQ(vm.run({0xC5, 0xF0, 0x56, 0xC9, 0xC5, all ? 0xFC : 0xF8, 0x77, 0xF4}), Exit::halted);
    EXPECT_EQ(vm.vector(), -1);
    EXPECT_EQ(vm.cpu.vec.zmm[7][0], all ? 0 : 0x77);
    EXPECT_EQ(vm.cpu.vec.zmm[7][16], 0);
    EXPECT_EQ(vm.cpu.vec.zmm[8][0], 0x77);
    EXPECT_EQ(vm.cpu.vec.zmm[15][16], 0x77);
  }
}

// Bit 17 is one that AMD's hosts have, and that no guest is offered.
TEST(InlinedByVendor, ReservedBitsOfMxcsrAreRefused) {
  SKIP_UNLESS_OFFERED("translate");
  install_vector_signal_handler();  // the host may be the one who refuses
  for (const isa::Vendor vendor : trapline::test::kVendors)
    for (const u32 wrong : {1u << 16, 1u << 17, 1u << 31}) {
      InterpretVm vm{Start::long64};
      vm.cpuid = trapline::test::policy_of(vendor);
      vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
      vm.at<u32>(vm.kData) = 0x7f80;
      vm.at<u32>(vm.kData + 4) = 0x1f80 | wrong;
      vm.reg(isa::rdi) = vm.kData;
      // ldmxcsr [rdi]; stmxcsr [rdi + 8]; ldmxcsr [rdi + 4]
      EXPECT_EQ(vm.run({0x0F, 0xAE, 0x17, 0x0F, 0xAE, 0x5F, 0x08, 0x0F, 0xAE, 0x57, 0x04}), Exit::halted);
      EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
      EXPECT_EQ(vm.vector(), 13) << std::hex << wrong;
      EXPECT_EQ(vm.at<u64>(vm.reg(isa::rsp) + 8), vm.kCode + 7) << "at the second";
      EXPECT_EQ(vm.at<u32>(vm.kData + 8), 0x7f80u);
      EXPECT_EQ(vm.cpu.vec.mxcsr, 0x7f80u);
    }
}

TEST_F(Inlined, XgetbvOfWhatThereIs) {
  vm.cpu.cr4 |= cr4::osxsave;
  vm.cpu.xcr0 = 7;
  vm.reg(isa::rcx) = 0xffff'ffff'0000'0000;
  vm.reg(isa::rax) = vm.reg(isa::rdx) = ~u64{0};
  EXPECT_EQ(vm.run({0x0F, 0x01, 0xD0, 0xF4}), Exit::halted);
  EXPECT_EQ(vm.reg(isa::rax), 7u);
  EXPECT_EQ(vm.reg(isa::rdx), 0u);
  vm.reg(isa::rcx) = 7;
  vm.cpu.activity = Activity::running;
  vm.cpu.rip = vm.kCode;
  EXPECT_EQ(vm.run(), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
}

// Of the host's x87 unit, with the guest's pointers.
TEST_F(Inlined, EnvironmentsOfTheX87Unit) {
  InterpretVm reference{Start::long64};
  for (InterpretVm* one : {&reference, &vm}) {
    one->clock.instructions = false;
    one->cpu.cr0 |= cr0::ne;
    one->reg(isa::rdi) = one->kData;
    for (const u16 control : {0x37f, 0x27f, 0x37e}) {
      const u32 environment[7] = {
          0xffff0000u | control, 0xffff3800, 0xffff1234, 0x11223344, 0xfabc0033, 0x55667788, 0xffff002b};
      std::memcpy(&one->at<u8>(one->kData), environment, sizeof environment);
      one->reg(isa::rsp) = one->kStack;
      one->cpu.activity = Activity::running;
      one->cpu.rip = one->kCode;
      EXPECT_EQ(one->run({0xDB, 0xE3,              // fninit
                          0xD9, 0xE8,              // fld1
                          0xDD, 0x57, 0x70,        // fst qword [rdi + 0x70]
                          0xD9, 0x77, 0x20,        // fnstenv [rdi + 0x20]
                          0xD9, 0xE8,              // fld1
                          0xD9, 0x27,              // fldenv [rdi]
                          0xD9, 0x77, 0x40,        // fnstenv [rdi + 0x40]
                          0xDB, 0xE3, 0xD9, 0xEB,  // fninit; fldpi
                          0xD9, 0x77, 0x60, 0xF4}),
                Exit::halted);
      x87_park(one->cpu);
      EXPECT_EQ(one->vector(), -1);
    }
  }
  EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
  for (u64 at = 0; at < 0x80; at += 4)
    EXPECT_EQ(vm.at<u32>(vm.kData + at), reference.at<u32>(reference.kData + at)) << std::hex << at;
  EXPECT_EQ(vm.cpu.x87.fip, reference.cpu.x87.fip);
}

// The index of what has been found is in ECX, which has another place in the host.
TEST_F(Inlined, StringComparisonsGiveAnIndex) {
  vm.reg(isa::rcx) = ~u64{0};
  vm.reg(isa::rdi) = vm.kData;
  std::memcpy(&vm.at<u8>(vm.kData), "abcdefghijklmnop", 16);
  std::memcpy(&vm.at<u8>(vm.kData + 16), "k", 2);
  EXPECT_EQ(vm.run({0xF3, 0x0F, 0x6F, 0x47, 0x10,                       // movdqu xmm0, [rdi + 16]
                    0x66, 0x0F, 0x3A, 0x63, 0x07, 0x00,                 // pcmpistri xmm0, [rdi], 0
                    0x89, 0xCE,                                         // mov esi, ecx
                    0xB8, 0x01, 0,    0,    0,    0xBA, 0x05, 0, 0, 0,  // mov eax, 1; mov edx, 5
                    0x66, 0x0F, 0x3A, 0x61, 0x07, 0x00,                 // pcmpestri xmm0, [rdi], 0
                    0xF4}),
            Exit::halted);
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.reg(isa::rsi), 10u);
  EXPECT_EQ(vm.reg(isa::rcx), 16u) << "beyond the five that it was to look at";
}

// What it says is kept, but not over what it depends on.
TEST_F(Inlined, CpuidByWhatHoldsNow) {
  LapicInbox inbox;
  LapicMirror mirror;
  Lapic lapic{vm.cpu, inbox, mirror};
  vm.cpu.lapic = &lapic;
  const auto ask = [&](u32 leaf, u32 subleaf) {
    vm.cpu.activity = Activity::running;
    vm.cpu.rip = vm.kCode;
    constexpr u64 kUpper = 0x1111'1111'0000'0000;
    vm.reg(isa::rax) = kUpper | leaf, vm.reg(isa::rcx) = kUpper | subleaf;
    vm.reg(isa::rbx) = vm.reg(isa::rdx) = kUpper;
    EXPECT_EQ(vm.run({0xF9, 0x0F, 0xA2, 0x40, 0x0F, 0x92, 0xC6, 0xF4}), Exit::halted);  // stc; cpuid; setc sil; hlt
    CpuidRegs r = vm.cpuid.query(leaf, subleaf, vm.cpu.index, vm.cpu.xcr0, vm.cpu.msr.xss, vm.cpu.cr4);
    if (leaf == 1 && !lapic.enabled()) r.edx &= ~(1u << 9);
    EXPECT_EQ(vm.reg(isa::rax), r.eax) << std::hex << leaf << '.' << subleaf;
    EXPECT_EQ(vm.reg(isa::rbx), r.ebx) << std::hex << leaf << '.' << subleaf;
    EXPECT_EQ(vm.reg(isa::rcx), r.ecx) << std::hex << leaf << '.' << subleaf;
    EXPECT_EQ(vm.reg(isa::rdx), r.edx) << std::hex << leaf << '.' << subleaf;
    EXPECT_EQ(vm.reg(isa::rsi) & 0xff, 1u) << "CF stays";
  };
  const auto ask_all = [&] {
    for (int time = 0; time < 2; time++)
      for (const u32 leaf : {0u, 1u, 4u, 7u, 0xbu, 0xdu, 0x15u, 0x40000000u, 0x80000001u, 0x8000001eu, 0x8000ffffu})
        for (const u32 subleaf : {0u, 0u, 1u, 2u, 0xffff'ffffu}) ask(leaf, subleaf);
  };
  ask_all();
  EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
  vm.cpu.cr4 |= cr4::osxsave;
  ask_all();
  vm.cpu.xcr0 = 3;
  ask_all();
  EXPECT_TRUE(lapic.msr_write(0x1b, 0xfee00100));
  EXPECT_FALSE(lapic.enabled());
  ask_all();
  vm.cpu.lapic = nullptr;
  vm.engine.reset();
}

// A store over the end of a page into code that has been translated: it is seen.
TEST_F(Inlined, AStoreOverTheEndOfAPageIntoCode) {
  constexpr u64 kFunction = 0x401000;
  vm.put(kFunction, {0xB8, 0x11, 0, 0, 0, 0xC3});  // mov eax, 0x11; ret
  vm.reg(isa::rdi) = kFunction;
  vm.reg(isa::rsi) = kFunction - 2;
  vm.reg(isa::rdx) = 0x22b8'5544;
  // mov [rsi - 16], edx; call rdi; mov ebx, eax; mov [rsi], edx; call rdi
  EXPECT_EQ(vm.run({0x89, 0x56, 0xF0, 0xFF, 0xD7, 0x89, 0xC3, 0x89, 0x16, 0xFF, 0xD7, 0xF4}), Exit::halted);
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.reg(isa::rbx), 0x11u);
  EXPECT_EQ(vm.reg(isa::rax), 0x22u);
  EXPECT_EQ(vm.at<u16>(kFunction - 2), 0x5544u);
}

// However many bytes lie on each side, and nothing beside them.
TEST_F(Inlined, StoresOverTheEndOfAPage) {
  constexpr u64 kEnd = 0x401000;
  const struct {
    unsigned bytes;
    std::vector<u8> store;
  } kStores[] = {{2, {0x66, 0x89, 0x17}},          // mov [rdi], dx
                 {4, {0x89, 0x17}},                // mov [rdi], edx
                 {8, {0x48, 0x89, 0x17}},          // mov [rdi], rdx
                 {8, {0x66, 0x0F, 0xD6, 0x07}},    // movq [rdi], xmm0
                 {16, {0xF3, 0x0F, 0x7F, 0x07}}};  // movdqu [rdi], xmm0
  u8 value[16];
  for (u8 i = 0; i < 16; i++) value[i] = static_cast<u8>(0xa0 + i);
  u64 place = vm.kCode;
  for (const auto& s : kStores) {
    // mov rcx, 3; l: stc; <store>; setc bl; lea rcx, [rcx - 1]; jrcxz out; jmp l; out: hlt
    std::vector<u8> code{0x48, 0xC7, 0xC1, 3, 0, 0, 0, 0xF9};
    code.insert(code.end(), s.store.begin(), s.store.end());
    const std::vector<u8> tail{0x0F,
                               0x92,
                               0xC3,
                               0x48,
                               0x8D,
                               0x49,
                               0xFF,
                               0xE3,
                               0x02,
                               0xEB,
                               static_cast<u8>(-(12 + static_cast<int>(s.store.size()))),
                               0xF4};
    code.insert(code.end(), tail.begin(), tail.end());
    std::copy(code.begin(), code.end(), &vm.at<u8>(place));
    for (unsigned before = 1; before < s.bytes; before++) {
      vm.cpu.activity = Activity::running;
      vm.cpu.rip = place;
      std::memset(&vm.at<u8>(kEnd - 32), 0x5a, 64);
      std::memcpy(&vm.reg(isa::rdx), value, 8);
      std::memcpy(vm.cpu.vec.zmm[0], value, 16);
      vm.reg(isa::rdi) = kEnd - before;
      ASSERT_EQ(vm.run(), Exit::halted) << s.bytes << " bytes, " << before << " before the end";
      EXPECT_EQ(vm.reg(isa::rbx) & 0xff, 1u) << "CF stays";
      for (unsigned i = 0; i < 64; i++) {
        const unsigned at = i - 32 + before;  // in the operand
        EXPECT_EQ(vm.at<u8>(kEnd - 32 + i), at < s.bytes ? value[at] : 0x5a)
            << s.bytes << " bytes, " << before << " before the end, byte " << i;
      }
    }
    place += 64;
  }
  EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
}

// A page that is the user's, under SMAP.
struct Smap : Inlined {
  static constexpr u64 kUserPage = 0x400000;
  void SetUp() override {
    Inlined::SetUp();
    if (IsSkipped()) return;
    for (const u64 table : {u64{0}, u64{0x1000}}) vm.at<u64>(vm.kTables + table) |= 4;
    vm.at<u64>(vm.kTables + 0x2000 + 2 * 8) |= 4;
    vm.at<u64>(vm.kTables + 0x3000) |= 4;
    vm.at<u64>(kUserPage) = 7;
    vm.cpu.cr4 |= cr4::smap;
    update_access(vm.cpu);
    tlb_flush_all(vm.cpu);
    vm.reg(isa::rsi) = kUserPage;
    vm.reg(isa::rdx) = vm.cpu.cr4;
  }
};

TEST_F(Smap, UserPagesAreInReachBetweenStacAndClacOnly) {
  // mov ecx, 100; l: stac; mov rax, [rsi]; add rbx, rax; clac; clac; dec ecx; jnz l; mov rdx, [rsi]; hlt
  const auto exit = vm.run({0xB9, 100,  0,    0,    0,    0x0F, 0x01, 0xCB, 0x48, 0x8B, 0x06, 0x48, 0x01, 0xC3,
                            0x0F, 0x01, 0xCA, 0x0F, 0x01, 0xCA, 0xFF, 0xC9, 0x75, 0xED, 0x48, 0x8B, 0x16, 0xF4});
  EXPECT_EQ(exit, Exit::halted);
  EXPECT_EQ(vm.reg(isa::rbx), 700u);
  EXPECT_EQ(vm.vector(), 14) << "behind the loop";
  EXPECT_GT(vm.cpu.count.blocks_translated, 1u);
  EXPECT_EQ(vm.cpu.sys_flags & flag::ac, 0u);
}

TEST_F(Smap, TheWritesOfBothViewsAreSeen) {
  // mov ecx, 50; l: stac; add qword [rsi], 1; clac; add qword [rdi], 1; dec ecx; jnz l; hlt
  vm.reg(isa::rdi) = vm.kData;
  EXPECT_EQ(vm.run({0xB9, 50,   0,    0,    0,    0x0F, 0x01, 0xCB, 0x48, 0x83, 0x06, 0x01,
                    0x0F, 0x01, 0xCA, 0x48, 0x83, 0x07, 0x01, 0xFF, 0xC9, 0x75, 0xEE, 0xF4}),
            Exit::halted);
  EXPECT_EQ(vm.at<u64>(kUserPage), 57u);
  EXPECT_EQ(vm.at<u64>(vm.kData), 50u);
}

TEST_F(Smap, TheFlagsOfOthersStay) {
  // stc; stac; clac; setc bl; pushfq; pop r8; hlt
  EXPECT_EQ(vm.run({0xF9, 0x0F, 0x01, 0xCB, 0x0F, 0x01, 0xCA, 0x0F, 0x92, 0xC3, 0x9C, 0x41, 0x58, 0xF4}), Exit::halted);
  EXPECT_EQ(vm.reg(isa::rbx) & 0xff, 1u);
  EXPECT_EQ(vm.reg(isa::r8) & flag::ac, 0u);
}

TEST_F(Smap, TheImageOfTheFlagsHasAc) {
  // stac; pushfq; pop r8; clac; hlt
  EXPECT_EQ(vm.run({0x0F, 0x01, 0xCB, 0x9C, 0x41, 0x58, 0x0F, 0x01, 0xCA, 0xF4}), Exit::halted);
  EXPECT_NE(vm.reg(isa::r8) & flag::ac, 0u);
}

TEST_F(Smap, WithoutItClacTakesNothingAway) {
  vm.reg(isa::rdx) &= ~u64{cr4::smap};
  // stac; mov cr4, rdx; clac; mov rax, [rsi]; pushfq; pop r8; hlt
  EXPECT_EQ(vm.run({0x0F, 0x01, 0xCB, 0x0F, 0x22, 0xE2, 0x0F, 0x01, 0xCA, 0x48, 0x8B, 0x06, 0x9C, 0x41, 0x58, 0xF4}),
            Exit::halted);
  EXPECT_EQ(vm.reg(isa::rax), 7u);
  EXPECT_EQ(vm.reg(isa::r8) & flag::ac, 0u);
}

TEST_F(Smap, WhoHasNoneReachesThemAlways) {
  vm.cpu.cr4 &= ~u64{cr4::smap};
  update_access(vm.cpu);
  // stac; clac; mov rbx, [rsi]; hlt
  EXPECT_EQ(vm.run({0x0F, 0x01, 0xCB, 0x0F, 0x01, 0xCA, 0x48, 0x8B, 0x1E, 0xF4}), Exit::halted);
  EXPECT_EQ(vm.reg(isa::rbx), 7u);
}

}  // namespace
}  // namespace trapline::engine::test
