// What the emitter writes is what a decoder reads.
#include "engine/hostcode/emitter.h"

#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace trapline::engine::hostcode {
namespace {

constexpr u64 kPlace = 0x10000000;

struct EmitterTest : testing::Test {
  std::unique_ptr<Emitter> owner = std::make_unique<Emitter>();
  Emitter& e = *owner;
  void SetUp() override { e.begin(kPlace); }

  // One line per instruction, targets as addresses relative to the start.
  std::string listing() const {
    std::string text;
    for (u32 at = 0; at < e.size();) {
      ZydisDisassembledInstruction insn;
      if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, at, e.data() + at, e.size() - at, &insn)))
        return text + "?";
      text += std::string{insn.text} + "\n";
      at += insn.info.length;
    }
    return text;
  }
};

TEST_F(EmitterTest, MovesAreTheShortestThatKeepTheFlags) {
  e.mov_imm(rax, 0);
  e.mov_imm(r9, ~u64{0});
  e.mov_imm(rcx, 0x123456789abc);
  e.mov_imm64(rdx, 1);
  EXPECT_EQ(listing(), "mov eax, 0x00\nmov r9, 0xFFFFFFFFFFFFFFFF\nmov rcx, 0x123456789ABC\nmov rdx, 0x01\n");
  EXPECT_EQ(e.size(), 5u + 7 + 10 + 10);
}

// RSP and R12 need a SIB byte, RBP and R13 a displacement.
TEST_F(EmitterTest, EveryBaseAndIndexIsEncoded) {
  for (const u8 base : {rax, rsp, rbp, r12, r13}) e.load(rdx, at(base));
  e.load(rdx, at(rsp, r12, 3, 0x7f));
  e.load(rdx, at(kNone, r15, 2, 0x80));
  e.store32(at(r13, -0x80), r8);
  EXPECT_EQ(listing(),
            "mov rdx, [rax]\nmov rdx, [rsp]\nmov rdx, [rbp]\nmov rdx, [r12]\nmov rdx, [r13]\n"
            "mov rdx, [rsp+r12*8+0x7F]\nmov rdx, [r15*4+0x80]\nmov [r13-0x80], r8d\n");
}

TEST_F(EmitterTest, ABoundJumpLeadsBehindWhatItLeapsOver) {
  const auto zero = e.jrcxz();
  const auto over = e.jmp_near();
  e.bind(zero);
  const auto far = e.jmp_far();
  e.bind(over);
  const auto above = e.jcc(Condition::above);
  e.bind(far);
  e.bind(above);
  EXPECT_EQ(listing(),
            "jrcxz 0x0000000000000004\njmp 0x0000000000000009\njmp 0x000000000000000F\njnbe 0x000000000000000F\n");
}

TEST_F(EmitterTest, AnAddressOfCodeIsThePlaceWhereItIsBound) {
  const auto back = e.lea_of(r11);
  e.jmp(kPlace);
  e.bind(back);
  EXPECT_EQ(listing(), "lea r11, [0x000000000000000C]\njmp 0x0000000000000000\n");
}

TEST_F(EmitterTest, ANearJumpKnowsHowFarItReaches) {
  const auto jump = e.jrcxz();
  for (int i = 0; i < 127; i++) e.byte(0x90);
  EXPECT_TRUE(e.reaches(jump));
  e.byte(0x90);
  EXPECT_FALSE(e.reaches(jump));
}

TEST_F(EmitterTest, NamedFormsAreWhatTheirNamesSay) {
  e.movzx8(rcx, rsi), e.movzx16(r10, at(rax)), e.store16(at(rax), r11), e.push(r12), e.pop(rbx), e.ret();
  e.add(rax, r9), e.neg(r10), e.cmp(rcx, rdx), e.cmp_imm32(rcx, 0x1000), e.cmp_imm8(rcx, 1), e.test(rax, rax);
  e.shl(rax, 16), e.shr(r10, 28), e.sar(rdx, 16), e.exclusive_or(rdx, r10), e.or_imm32(rdx, 0xfff), e.complement(rdx);
  e.test_imm32(at(rbx), 0x400), e.pause(), e.ldmxcsr(at(rax)), e.stmxcsr(at(rax)), e.fnstcw(at(rax)), e.call_reg(rax);
  EXPECT_EQ(listing(),
            "movzx ecx, sil\nmovzx r10d, word ptr [rax]\nmov [rax], r11w\npush r12\npop rbx\nret\n"
            "add rax, r9\nneg r10\ncmp rcx, rdx\ncmp rcx, 0x1000\ncmp rcx, 0x01\ntest rax, rax\n"
            "shl rax, 0x10\nshr r10, 0x1C\nsar rdx, 0x10\nxor rdx, r10\nor rdx, 0xFFF\nnot rdx\n"
            "test dword ptr [rbx], 0x400\npause\nldmxcsr [rax]\nstmxcsr [rax]\nfnstcw [rax]\n"
            "call rax\n");
}

TEST_F(EmitterTest, WhatDoesNotFitIsSaidAndNotWritten) {
  for (u32 i = 0; i < Emitter::kCapacity; i++) e.byte(0x90);
  EXPECT_FALSE(e.overflowed());
  e.imm64(0);
  EXPECT_TRUE(e.overflowed());
}

TEST_F(EmitterTest, FixupsNameWhatLeadsOut) {
  std::vector<Fixup> fixups;
  e.begin(kPlace, &fixups);
  e.jmp(kPlace + 0x1000);
  e.load(rax, Mem{.absolute = kPlace + 0x2000});
  ASSERT_EQ(fixups.size(), 2u);
  EXPECT_EQ(fixups[0].at, 1u);
  EXPECT_EQ(fixups[0].value, kPlace + 0x1000);
  EXPECT_EQ(fixups[1].at, 8u);
  EXPECT_EQ(fixups[1].kind, Fixup::Kind::outside);
}

}  // namespace
}  // namespace trapline::engine::hostcode
