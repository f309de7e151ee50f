#include "cpu/delivery.h"
#include "cpu/hypervisor.h"
#include "interpret_vm.h"

#include <gmock/gmock.h>

namespace trapline::engine::test {
namespace {

using namespace isa;

constexpr int kHlt = 0xf4;

// -- Integer instructions
TEST(Interpret, AddSetsFlagsThatPushfShows) {
  InterpretVm vm{Start::long64};
  // mov al,0x7f; add al,1; pushfq; pop rbx; hlt
  EXPECT_EQ(vm.run({0xb0, 0x7f, 0x04, 0x01, 0x9c, 0x5b, kHlt}), Exit::halted);
  EXPECT_EQ(vm.reg(rax) & 0xff, 0x80u);
  EXPECT_EQ(vm.reg(rbx) & flag::arith, flag::of | flag::sf | flag::af);
  EXPECT_EQ(vm.cpu.retired, 5u);
}

TEST(Interpret, HighByteRegistersAndConditionalMoveZeroExtend) {
  InterpretVm vm{Start::long64};
  vm.reg(rax) = ~u64{0};
  // mov rax,-1 (as 32 bits); mov ah,0x12; xor ecx,ecx; mov cl,ah; cmovne eax,ecx (ZF: not taken); hlt
  vm.run({0xb8, 0xff, 0xff, 0xff, 0xff, 0xb4, 0x12, 0x31, 0xc9, 0x88, 0xe1, 0x0f, 0x45, 0xc1, kHlt});
  EXPECT_EQ(vm.reg(rax), 0xffff12ffu);
  EXPECT_EQ(vm.reg(rcx), 0x12u);
}

TEST(Interpret, DivideByZeroFaultsAtTheInstruction) {
  InterpretVm vm{Start::long64};
  // xor edx,edx; mov eax,5; xor ecx,ecx; div ecx; hlt
  vm.run({0x31, 0xd2, 0xb8, 0x05, 0, 0, 0, 0x31, 0xc9, 0xf7, 0xf1, kHlt});
  EXPECT_EQ(vm.vector(), 0);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 9);
  EXPECT_EQ(vm.reg(rax), 5u);
  EXPECT_EQ(vm.cpu.retired, 4u);  // three, and the handler's HLT
}

TEST(Interpret, CmpxchgLoadsTheAccumulatorWhenDifferent) {
  InterpretVm vm{Start::long64};
  // mov eax,1; mov ebx,2; cmpxchg ebx,ecx; hlt
  vm.run({0xb8, 1, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0x0f, 0xb1, 0xcb, kHlt});
  EXPECT_EQ(vm.reg(rax), 2u);
  EXPECT_EQ(vm.reg(rbx), 2u);
  EXPECT_FALSE(vm.cpu.rflags() & flag::zf);
}

// Its displacement fits no operand of an op: the address goes through a register of the engine's own.
TEST(Interpret, FullAddressesLeaveEverythingElseAlone) {
  InterpretVm vm{Start::long64};
  // or al,0xff; mov al,[0xffff000000200000]; hlt: not canonical, so that a handler sees the state
  vm.run({0x0c, 0xff, 0x48, 0xa0, 0, 0, 0x20, 0, 0, 0, 0xff, 0xff, kHlt});
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(vm.cpu.cpl, 0);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp) + 8), vm.kCode + 2);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp) + 24) & flag::arith, flag::sf | flag::pf);
}

TEST(Interpret, BitStringsReachBelowTheirBase) {
  InterpretVm vm{Start::long64};
  vm.reg(rdi) = vm.kData;
  // mov rdx,-65; bts [rdi],rdx; hlt
  vm.run({0x48, 0xc7, 0xc2, 0xbf, 0xff, 0xff, 0xff, 0x48, 0x0f, 0xab, 0x17, kHlt});
  EXPECT_EQ(vm.at<u64>(vm.kData - 16), u64{1} << 63);
}

TEST(Interpret, NonCanonicalJumpFaultsAtTheJump) {
  InterpretVm vm{Start::long64};
  // mov rax,0x8000000000000000; jmp rax
  vm.run({0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xe0});
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp) + 8), vm.kCode + 10);
}

// The address that marks empty entries of the jump cache is one that guests can name.
TEST(Interpret, JumpsAndCallsToTheLastByteOfMemory) {
  for (const u8 modrm : {u8{0xe0}, u8{0xd0}}) {
    InterpretVm vm{Start::long64};
    // mov rax,-1; jmp rax (call rax)
    vm.run({0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, modrm});
    EXPECT_EQ(vm.vector(), 14);
    EXPECT_EQ(vm.cpu.cr2, ~u64{0});
  }
}

TEST(Interpret, InvalidOpcodeRaisesUd) {
  InterpretVm vm{Start::long64};
  vm.run({0x90, 0x06});  // PUSH ES does not exist in 64-bit mode
  EXPECT_EQ(vm.vector(), 6);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 1);
}

// -- Other modes
TEST(Interpret, RealModeCallsLoopsAndTruncates) {
  InterpretVm vm{Start::real16};
  // mov ax,0x1234; push ax; call 1f; hlt; 1: pop bx; push bx; mov cx,3; 2: inc dx; loop 2b; ret
  vm.put(vm.kCode,
         {0xb8, 0x34, 0x12, 0x50, 0xe8, 0x01, 0x00, 0xf4, 0x5b, 0x53, 0xb9, 0x03, 0x00, 0x42, 0xe2, 0xfd, 0xc3});
  vm.reg(rdx) = 0xaaaa0000'0000ffff;
  EXPECT_EQ(vm.run(), Exit::halted);
  EXPECT_EQ(vm.reg(rbx) & 0xffff, 7u);
  EXPECT_EQ(vm.reg(rdx), 0xaaaa0000'00000002u);
  EXPECT_EQ(vm.reg(rsp), 0x7ffeu);
  EXPECT_EQ(vm.at<u16>(0x7ffe), 0x1234u);
}

TEST(Interpret, RealModeJumpPastTheLimitFaults) {
  InterpretVm vm{Start::real16};
  vm.put(vm.kCode + 0xffff, {0x90, 0x90});
  // 66 e9: jmp with a 32-bit displacement, to 0x10000
  vm.put(vm.kCode, {0x66, 0xe9, 0xfa, 0xff, 0x00, 0x00});
  vm.run();
  EXPECT_EQ(vm.vector(), 13);
}

TEST(Interpret, FlatProtectedModeStackAndDecimals) {
  InterpretVm vm{Start::flat32};
  // mov eax,0x99; add al,1; daa; push eax; pushad; popad; pop ebx; enter 8,1; leave; hlt
  vm.run({0xb8, 0x99, 0, 0, 0, 0x04, 0x01, 0x27, 0x50, 0x60, 0x61, 0x5b, 0xc8, 8, 0, 1, 0xc9, kHlt});
  EXPECT_EQ(vm.reg(rbx), 0u);  // 99 + 1 = 100: AL 0 and a carry
  EXPECT_TRUE(vm.cpu.carry());
  EXPECT_EQ(vm.reg(rsp), vm.kStack);
}

TEST(Interpret, SegmentLimitFaults) {
  InterpretVm vm{Start::flat32};
  vm.seg(Seg::ds).limit = 0xfff;
  update_mode(vm.cpu);
  vm.reg(rbx) = 0xffd;
  vm.run({0x8b, 0x03, kHlt});  // mov eax,[ebx]
  EXPECT_EQ(vm.vector(), 13);
}

// -- Memory
TEST(Interpret, RmwChecksWritePermissionFirst) {
  InterpretVm vm{Start::long64};
  vm.set_page(0x500000, 0x500001);  // read-only
  vm.at<u32>(0x500000) = 7;
  vm.reg(rdi) = 0x500000;
  vm.run({0x01, 0x07, kHlt});  // add [rdi],eax
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), u64{pf_error::present | pf_error::write});
  EXPECT_EQ(vm.cpu.cr2, 0x500000u);
}

TEST(Interpret, LockedAddAcrossPages) {
  InterpretVm vm{Start::long64};
  vm.set_page(0x500000, 0x502003);  // the two halves are not neighbours in RAM
  vm.reg(rdi) = 0x500ffe;
  vm.at<u16>(0x502ffe) = 0xffff;
  vm.run({0xf0, 0x83, 0x07, 0x01, kHlt});  // lock add dword [rdi],1
  EXPECT_EQ(vm.at<u16>(0x502ffe), 0u);
  EXPECT_EQ(vm.at<u16>(0x501000), 1u);
}

TEST(Interpret, DeviceAccessesSeeExactState) {
  InterpretVm vm{Start::long64};
  vm.at<u64>(vm.kTables + 0x2000 + 8) = 0xe0000000 | 0x83;  // 2 MiB at 2 MiB
  tlb_flush_all(vm.cpu);
  // nop; mov eax,[0x200004]; nop; mov [0x200008],al; hlt
  vm.run({0x90, 0x8b, 0x04, 0x25, 4, 0, 0x20, 0, 0x90, 0x88, 0x04, 0x25, 8, 0, 0x20, 0, kHlt});
  EXPECT_EQ(vm.reg(rax), 0x00000404u);  // low half of 0xe0000004 << 8 | 4
  ASSERT_EQ(vm.bus.stored.size(), 1u);
  EXPECT_EQ(vm.bus.stored[0].gpa, 0xe0000008u);
  EXPECT_EQ(vm.bus.stored[0].size, 1u);
  EXPECT_EQ(vm.bus.mmio_rip, vm.kCode + 9);
  EXPECT_EQ(vm.bus.mmio_retired, 3u);
}

// -- Self-modifying code
TEST(Interpret, StoreIntoTheSameBlockTakesEffect) {
  InterpretVm vm{Start::long64};
  vm.reg(rdx) = 0;
  // mov ecx,3; 0: mov [rip+1],cl (the immediate of the next one); mov al,0x11; add edx,eax; dec ecx; jnz 0b; hlt
  vm.run({0xb9, 3, 0, 0, 0, 0x88, 0x0d, 1, 0, 0, 0, 0xb0, 0x11, 0x01, 0xc2, 0xff, 0xc9, 0x75, 0xf2, kHlt});
  EXPECT_EQ(vm.reg(rdx), 3u + 2 + 1);
  EXPECT_EQ(vm.cpu.retired, 1u + 3 * 5 + 1);
}

TEST(Interpret, WriteBesideCodeKeepsTheBlock) {
  InterpretVm vm{Start::long64};
  // mov ecx,100; 1: mov [rip+0x400],ecx; dec ecx; jnz 1b; hlt
  vm.run({0xb9, 100, 0, 0, 0, 0x89, 0x0d, 0, 4, 0, 0, 0xff, 0xc9, 0x75, 0xf6, kHlt});
  EXPECT_EQ(vm.cpu.retired, 1u + 300 + 1);
  EXPECT_EQ(vm.cpu.count.blocks_invalidated, 0u);
}

TEST(Interpret, LinksToARewrittenBlockStayDead) {
  InterpretVm vm{Start::long64};
  vm.reg(rdx) = 0;
  // 0: jmp 1f; 1: add edx,1; dec ecx; jnz 0b; hlt -- and then, entered at 1, the immediate is another
  vm.put(vm.kCode, {0xeb, 0x0e});
  vm.put(vm.kCode + 0x10, {0x83, 0xc2, 1, 0xff, 0xc9, 0x75, 0xe9, kHlt});
  const auto go = [&](u64 rip) {
    vm.cpu.rip = rip;
    vm.reg(rcx) = 3;
    vm.cpu.activity = Activity::running;
    EXPECT_EQ(vm.run(), Exit::halted);
  };
  go(vm.kCode);
  EXPECT_EQ(vm.reg(rdx), 3u);
  vm.at<u8>(vm.kCode + 0x12) = 0x10;
  vm.map.written(vm.kCode >> 12, 0x12, 1);
  go(vm.kCode + 0x10);
  EXPECT_EQ(vm.reg(rdx), 3u + 3 * 0x10);
}

TEST(Interpret, InstructionAcrossPagesSeesChangesInBoth) {
  InterpretVm vm{Start::long64};
  const u64 start = 0x401ffe;  // mov eax,imm32 with three bytes in the second page; then hlt
  vm.put(start, {0xb8, 1, 2, 3, 4, kHlt});
  vm.cpu.rip = start;
  vm.run();
  EXPECT_EQ(vm.reg(rax), 0x04030201u);
  vm.at<u8>(0x402000) = 9;
  vm.map.written(0x402, 0, 1);
  vm.cpu.rip = start;
  vm.cpu.activity = Activity::running;
  vm.run();
  EXPECT_EQ(vm.reg(rax), 0x04030901u);
}

TEST(Interpret, FetchFaultOnTheSecondPage) {
  InterpretVm vm{Start::long64};
  vm.put(0x401ffe, {0xb8, 1});
  vm.set_page(0x402000, 0);
  vm.cpu.rip = 0x401ffe;
  vm.run();
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, 0x402000u);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp) + 8), 0x401ffeu);
}

// -- Budgets
// What never retires an instruction comes back all the same: other vCPUs may be waiting for their turn.
TEST(Interpret, AHandlerThatFaultsAtOnceSpendsItsBudget) {
  InterpretVm vm{Start::long64};
  vm.put(vm.kHandlers + 16 * 6, {0x0f, 0x0b});  // ud2
  EXPECT_EQ(vm.run({0x0f, 0x0b}), Exit::budget_spent);
  EXPECT_EQ(vm.cpu.retired, 0u);
  EXPECT_EQ(vm.cpu.rip, vm.kHandlers + 16 * 6);
}

TEST(Interpret, ARepWithoutEndSpendsItsBudget) {
  for (const int opcode : {0xac, 0xae}) {  // rep lodsb; repne scasb
    InterpretVm vm{Start::long64};
    const u64 count = u64{1} << 60;
    vm.reg(rcx) = count;
    vm.reg(rax) = 7;  // nowhere
    vm.reg(rsi) = vm.reg(rdi) = vm.kData;
    EXPECT_EQ(vm.run({0xf2, opcode, kHlt}), Exit::budget_spent);
    const u64 done = count - vm.reg(rcx);
    EXPECT_EQ(vm.reg(opcode == 0xac ? rsi : rdi), vm.kData + done);
    EXPECT_GT(done, 1000u);
    EXPECT_EQ(vm.cpu.rip, vm.kCode);
    EXPECT_EQ(vm.cpu.retired, 0u);
  }
}

// -- x87
// CR0.NE = 0: x87 instructions run in spite of a pending exception, which stays pending; FLDENV too.
TEST(Interpret, IgnoredX87ExceptionsStayPending) {
  InterpretVm vm{Start::flat32};
  ASSERT_FALSE(vm.cpu.cr0 & cr0::ne);
  vm.reg(rbx) = vm.kData;
  vm.at<u16>(vm.kData) = 0x340;  // nothing masked
  vm.at<u32>(vm.kData + 64) = 0x37f, vm.at<u32>(vm.kData + 68) = 0, vm.at<u32>(vm.kData + 72) = 0xffff;
  // fninit; fldcw [ebx]; fstp st0 (of an empty stack); fld1; fxsave [ebx+128]; fldenv [ebx+64]; fnstsw ax; hlt
  vm.cpu.cr4 |= cr4::osfxsr;
  vm.run({0xdb, 0xe3, 0xd9, 0x2b, 0xdd, 0xd8, 0xd9, 0xe8, 0x0f, 0xae, 0x83,
          128,  0,    0,    0,    0xd9, 0x63, 64,   0xdf, 0xe0, kHlt});
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.at<u16>(vm.kData + 128), 0x340u);
  EXPECT_EQ(vm.at<u16>(vm.kData + 130) & 0x80c1, 0x80c1) << "B, ES, SF, IE";
  EXPECT_EQ(vm.reg(rax) & 0xffff, 0u);
}

// CR0.NE = 0: the error goes to IRQ 13 by FERR#, once until it is cleared, and the instruction that found it waits.
TEST(Interpret, X87ErrorsReachTheBoardAsIrq13) {
  InterpretVm vm{Start::flat32};
  std::vector<u64> seen;
  vm.cpu.sys_flags |= cpu::flag::if_;
  vm.reg(rbx) = vm.kData;
  vm.at<u16>(vm.kData) = 0x340;  // nothing masked
  vm.bus.on_numeric_error = [&] { seen.push_back(vm.cpu.rip - vm.kCode); };
  // fninit; fldcw [ebx]; fstp st0 (of an empty stack); fwait; fwait; fnclex; fwait; fstp st0; fwait; hlt
  vm.run({0xdb, 0xe3, 0xd9, 0x2b, 0xdd, 0xd8, 0x9b, 0x9b, 0xdb, 0xe2, 0x9b, 0xdd, 0xd8, 0x9b, kHlt});
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_THAT(seen, testing::ElementsAre(6, 13)) << "once, and again after FNCLEX";
}

TEST(Interpret, X87ErrorsOfOtherProcessorsAndWithNeStayInside) {
  InterpretVm second{Start::flat32};
  second.cpu.index = 1;
  second.reg(rbx) = second.kData;
  second.at<u16>(second.kData) = 0x340;
  second.run({0xdb, 0xe3, 0xd9, 0x2b, 0xdd, 0xd8, 0x9b, kHlt});
  EXPECT_EQ(second.vector(), -1);
  EXPECT_EQ(second.bus.numeric_errors, 0);
  InterpretVm native{Start::flat32};
  native.cpu.cr0 |= cr0::ne;
  native.reg(rbx) = native.kData;
  native.at<u16>(native.kData) = 0x340;
  native.run({0xdb, 0xe3, 0xd9, 0x2b, 0xdd, 0xd8, 0x9b, kHlt});
  EXPECT_EQ(native.vector(), 16);
  EXPECT_EQ(native.bus.numeric_errors, 0);
}

// -- Strings
TEST(Interpret, RepMovsFaultsWithExactProgress) {
  InterpretVm vm{Start::long64};
  vm.set_page(0x401000, 0);
  for (u64 i = 0; i < 4; i++) vm.at<u64>(vm.kData + i * 8) = i + 1;
  // mov edi,0x400ff0; mov esi,0x200000; mov ecx,4; rep movsq; hlt
  vm.run({0xbf, 0xf0, 0x0f, 0x40, 0, 0xbe, 0, 0, 0x20, 0, 0xb9, 4, 0, 0, 0, 0xf3, 0x48, 0xa5, kHlt});
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.reg(rcx), 2u);
  EXPECT_EQ(vm.reg(rdi), 0x401000u);
  EXPECT_EQ(vm.reg(rsi), vm.kData + 16);
  EXPECT_EQ(vm.at<u64>(0x400ff8), 2u);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp) + 8), vm.kCode + 15);
}

TEST(Interpret, OverlappingForwardCopyRepeatsThePattern) {
  InterpretVm vm{Start::long64};
  vm.at<u8>(vm.kData) = 0xab;
  vm.reg(rsi) = vm.kData;
  vm.reg(rdi) = vm.kData + 1;
  vm.reg(rcx) = 20;
  vm.run({0xf3, 0xa4, kHlt});
  for (u64 i = 0; i <= 20; i++) EXPECT_EQ(vm.at<u8>(vm.kData + i), 0xab);
  EXPECT_EQ(vm.at<u8>(vm.kData + 21), 0);
}

TEST(Interpret, BackwardsAndScan) {
  InterpretVm vm{Start::long64};
  for (unsigned i = 0; i < 3; i++) vm.at<u8>(vm.kData + 6 + i) = static_cast<u8>(0xa0 + i);
  vm.at<u8>(vm.kData + 0x104) = 0x55;
  // std; mov edi,0x200010; mov esi,0x200008; mov ecx,3; rep movsb; cld; mov edi,0x200100; mov al,0x55; mov ecx,9; repne
  // scasb; hlt
  vm.run({0xfd, 0xbf, 0x10, 0, 0x20, 0,    0xbe, 0x08, 0,    0x20, 0, 0xb9, 3, 0, 0,    0,    0xf3,
          0xa4, 0xfc, 0xbf, 0, 0x01, 0x20, 0,    0xb0, 0x55, 0xb9, 9, 0,    0, 0, 0xf2, 0xae, kHlt});
  EXPECT_EQ(vm.at<u16>(vm.kData + 0xe), 0xa1a0u);
  EXPECT_EQ(vm.at<u16>(vm.kData + 0x10), 0x00a2u);
  EXPECT_EQ(vm.reg(rdi), vm.kData + 0x105);
  EXPECT_EQ(vm.reg(rcx), 4u);
  EXPECT_TRUE(vm.cpu.rflags() & flag::zf);
}

// -- The run loop
TEST(Interpret, BudgetIsExactWithTheInstructionClock) {
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0x90, 0x90, 0x90, 0xff, 0xc0, 0xeb, 0xf9});  // 1: nop; nop; nop; inc eax; jmp 1b
  for (const u64 budget : {1u, 3u, 7u, 100u, 12345u}) {
    const u64 before = vm.cpu.retired;
    EXPECT_EQ(vm.run(budget), Exit::budget_spent);
    EXPECT_EQ(vm.cpu.retired - before, budget);
  }
  EXPECT_EQ(vm.reg(rax), (1 + 3 + 7 + 100 + 12345) / 5u);
}

TEST(Interpret, StepExecutesOneInstruction) {
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xff, 0xc0, 0xff, 0xc0, kHlt});
  EXPECT_EQ(vm.engine->step(vm.cpu), Exit::breakpoint);
  EXPECT_EQ(vm.cpu.rip, vm.kCode + 2);
  EXPECT_EQ(vm.cpu.retired, 1u);
}

TEST(Interpret, KickEndsAnEndlessLoop) {
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xeb, 0xfe});
  vm.cpu.attention->fetch_or(attention::kick);
  EXPECT_EQ(vm.run(~u64{0}), Exit::kicked);
}

TEST(Interpret, TrapFlagTrapsAfterEachInstruction) {
  InterpretVm vm{Start::long64};
  // pushfq; or qword [rsp],0x100; popfq; inc eax; inc eax; hlt
  vm.run({0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0xff, 0xc0, 0xff, 0xc0, kHlt});
  EXPECT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.reg(rax), 1u);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 12);
  EXPECT_TRUE(vm.cpu.debug.dr6 & 0x4000);
}

// INTO without OF is an instruction as any other; with OF its gate has cleared TF.
TEST(Interpret, IntoTrapsInTimeUnderTf) {
  InterpretVm vm{Start::flat32};
  vm.cpu.set_rflags_raw(cpu::flag::fixed | cpu::flag::tf);
  cpu::update_mode(vm.cpu);
  vm.run({0xce, 0x40, kHlt});  // into; inc eax
  EXPECT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.reg(rax), 0u);
  EXPECT_EQ(vm.at<u32>(vm.reg(rsp)), vm.kCode + 1);

  InterpretVm taken{Start::flat32};
  taken.cpu.set_rflags_raw(cpu::flag::fixed | cpu::flag::tf | cpu::flag::of);
  cpu::update_mode(taken.cpu);
  taken.run({0xce, 0x40, kHlt});
  EXPECT_EQ(taken.vector(), 4);
}

// A data breakpoint on the operand of MOV SS waits for the next instruction to end, and is told with what that one
// hits; an instruction breakpoint there is passed over (SDM Vol. 3A 6.8.3).
TEST(Interpret, DataBreakpointOfALoadOfSsIsHeld) {
  for (const bool second_hits : {false, true}) {
    InterpretVm vm{Start::long64};
    vm.at<u16>(vm.kData) = 0x10;
    vm.cpu.debug.dr[0] = vm.kData;
    vm.cpu.debug.dr[1] = vm.kCode + 2;
    vm.cpu.debug.dr[2] = vm.kData + 8;
    vm.cpu.debug.dr7 |= 1 | 0x70000;                      // L0: 2 bytes, read or write
    vm.cpu.debug.dr7 |= 4;                                // L1: the instruction behind
    if (second_hits) vm.cpu.debug.dr7 |= 16 | 0xd000000;  // L2: 4 bytes, written
    update_mode(vm.cpu);
    vm.reg(rdi) = vm.kData;
    vm.run({0x8e, 0x17, 0x89, 0x47, 8, 0xff, 0xc0, kHlt});  // mov ss,[rdi]; mov [rdi+8],eax; inc eax
    EXPECT_EQ(vm.vector(), 1);
    EXPECT_EQ(vm.reg(rax), 0u);
    EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 5);
    EXPECT_EQ(vm.cpu.debug.dr6 & 15, second_hits ? 5u : 1u);
  }
}

// A kernel's handler of #DB has a stack that a second one would begin anew (IST): the held one comes with INT1's own.
TEST(Interpret, AHeldBreakpointIsLostToInt1) {
  InterpretVm vm{Start::long64};
  vm.at<u16>(vm.kData) = 0x10;
  vm.cpu.debug.dr[0] = vm.kData;
  vm.cpu.debug.dr7 |= 1 | 0x70000;
  update_mode(vm.cpu);
  vm.reg(rdi) = vm.kData;
  vm.run({0x8e, 0x17, 0xf1, 0xff, 0xc0, kHlt});  // mov ss,[rdi]; int1; inc eax
  EXPECT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 3);
  EXPECT_EQ(vm.cpu.debug.dr6 & 15, 0u);
}

// One whose kernel is somewhere else by the time: it says at once where a SYSCALL goes on.
struct Elsewhere final : Hypervisor {
  unsigned calls = 0, debug_traps = 0;
  Outcome syscall(Vcpu& cpu, u64 next) override {
    calls++;
    cpu.rip = next;
    return Outcome::jumped;
  }
  Outcome deliver(Vcpu&, const Event& event) override {
    debug_traps += event.vector == 1;
    return Outcome::stop;
  }
  Outcome take_event(Vcpu&) override { return Outcome::next; }
  bool wakes(Vcpu&) override { return false; }
  void on_timer(Vcpu&) override {}
  bool start(Vcpu&) override { return false; }
  void flush(Vcpu&) override {}
  bool takes_write(Vcpu&, Gva, Gpa, unsigned) override { return false; }
  bool write_table(Vcpu&, Gva, Gpa, const void*, unsigned) override { return false; }
  bool replace_table(Vcpu&, Gva, Gpa, const void*, const void*, unsigned, bool*) override { return false; }
};

// The held breakpoint comes where SYSCALL leads: into a hypervisor's own code, which makes nothing of it (XSA-260).
TEST(Interpret, AHeldBreakpointBelongsToTheHypervisorThatIsEntered) {
  for (const bool enters : {true, false}) {
    InterpretVm vm{Start::long64};
    Elsewhere hypervisor;
    for (u64 entry = 0; entry < 512; entry++)  // pages that are not a user's are the hypervisor's
      for (const u64 table : {0, 0x1000, 0x2000, 0x3000}) vm.at<u64>(vm.kTables + table + entry * 8) |= 4;
    vm.cpu.hypervisor = &hypervisor;
    vm.cpu.cpl = 3;
    vm.seg(Seg::ss).selector = vm.at<u16>(vm.kData) = 0x13;
    constexpr u64 kGdt = 0x400000;  // on a page of the hypervisor's
    vm.at<u64>(kGdt + 0x10) = 0x00cff3000000ffff;
    vm.cpu.gdtr = {kGdt, 0x1f};
    vm.at<u64>(vm.kTables + 0x3000) &= ~u64{4};
    tlb_flush_all(vm.cpu);
    vm.cpu.efer |= efer::sce;
    vm.cpu.debug.dr[0] = vm.kData;
    vm.cpu.debug.dr7 |= 1 | 0x70000;
    update_mode(vm.cpu);
    vm.reg(rdi) = vm.kData;
    enters ? vm.run({0x8e, 0x17, 0x0f, 0x05, 0xff, 0xc0, kHlt})   // mov ss,[rdi]; syscall; inc eax
           : vm.run({0x8e, 0x17, 0x66, 0x90, 0xff, 0xc0, kHlt});  // nop
    EXPECT_EQ(hypervisor.calls, enters ? 1u : 0u);
    EXPECT_EQ(hypervisor.debug_traps, enters ? 0u : 1u);
    EXPECT_EQ(vm.reg(rax), enters ? 1u : 0u);
  }
}

TEST(Interpret, InstructionBreakpointIsAFault) {
  InterpretVm vm{Start::long64};
  vm.cpu.debug.dr[0] = vm.kCode + 2;
  vm.cpu.debug.dr7 |= 2;
  update_mode(vm.cpu);
  vm.run({0xff, 0xc0, 0xff, 0xc0, kHlt});
  EXPECT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.reg(rax), 1u);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 2);
}

TEST(Interpret, DataBreakpointTrapsAfterTheStore) {
  InterpretVm vm{Start::long64};
  vm.cpu.debug.dr[1] = vm.kData;
  vm.cpu.debug.dr7 |= 8 | 0xd << 20;  // G1, write, 4 bytes
  update_mode(vm.cpu);
  vm.reg(rdi) = vm.kData;
  vm.run({0xff, 0xc0, 0x89, 0x07, 0xff, 0xc0, kHlt});  // inc eax; mov [rdi],eax; inc eax
  EXPECT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.at<u32>(vm.kData), 1u);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), vm.kCode + 4);
}

TEST(Interpret, RepeatedRunsRetireTheSame) {
  u64 retired[2];
  for (u64& r : retired) {
    InterpretVm vm{Start::long64};
    // mov ecx,1000; 1: push rcx; pop rdx; rdtsc; xor ebx,eax; dec ecx; jnz 1b; hlt
    vm.run({0xb9, 0xe8, 3, 0, 0, 0x51, 0x5a, 0x0f, 0x31, 0x31, 0xc3, 0xff, 0xc9, 0x75, 0xf6, kHlt});
    r = vm.cpu.retired + (vm.reg(rbx) << 32);
  }
  EXPECT_EQ(retired[0], retired[1]);
}

TEST(Interpret, RewritingItsOwnBlockForeverWorks) {
  InterpretVm vm{Start::long64};
  // Each round makes a new block.
  // mov ecx,10000; 0: mov [rip+1],ecx; mov eax,imm32; dec ecx; jnz 0b; hlt
  vm.run({0xb9, 0x10, 0x27, 0, 0, 0x89, 0x0d, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf1, kHlt});
  EXPECT_EQ(vm.reg(rax), 1u);
  EXPECT_EQ(vm.cpu.retired, 1u + 10000 * 4 + 1);
}

TEST(Interpret, FlushForgetsAndRunsOn) {
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xff, 0xc0, 0xeb, 0xfc});  // 1: inc eax; jmp 1b
  for (unsigned i = 0; i < 4; i++) {
    EXPECT_EQ(vm.run(100), Exit::budget_spent);
    vm.engine->flush();
  }
  EXPECT_EQ(vm.reg(rax), 200u);
}

}  // namespace
}  // namespace trapline::engine::test
