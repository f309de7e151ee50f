// What the emitter writes is what a decoder reads.
#include "engine/emit/emitter.h"

#include <gtest/gtest.h>

#include "unit/engine/emitted.h"

namespace trapline::engine::emit {
namespace {

struct EmitterTest : EmittedTest {};

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
  EXPECT_TRUE(e.try_bind(jump));
  e.byte(0x90);
  EXPECT_FALSE(e.try_bind(jump));
  EXPECT_DEATH(e.bind(jump), "a short jump over 128 bytes");
}

TEST_F(EmitterTest, WhatADisplacementCannotSayIsNotEncoded) {
  EXPECT_EQ(displacement(kPlace + 2 * GiB - 1, kPlace), 0x7fffffffu);
  EXPECT_EQ(displacement(kPlace, kPlace + 2 * GiB), 0x80000000u);
  EXPECT_DEATH((void)displacement(kPlace + 2 * GiB, kPlace), "out of reach");
  EXPECT_DEATH((void)displacement(kPlace, kPlace + 2 * GiB + 1), "out of reach");
  EXPECT_DEATH(e.jmp(kPlace + 4 * GiB), "out of reach");
  const u64* const far = reinterpret_cast<const u64*>(kPlace + 4 * GiB);
  EXPECT_DEATH(e.load(rax, var(far)), "out of reach");
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

TEST_F(EmitterTest, SizesSelectTheForm) {
  for (const unsigned bytes : {1u, 2u, 4u, 8u}) e.load_sized(bytes, rsi, at(rax)), e.store_sized(bytes, at(r9), rax);
  e.cmp_sized(1, rdi, at(rax)), e.cmp_sized(8, rdi, at(rax)), e.inc_sized(2, rax), e.dec_sized(8, r9);
  for (const unsigned bytes : {2u, 4u, 8u}) e.movsx(bytes, rcx, r9), e.movsx(bytes, rcx, at(rax));
  e.rep(StringInsn::movs, 1), e.rep(StringInsn::stos, 2), e.rep(StringInsn::scas, 8, false), e.rep(StringInsn::cmps, 4);
  EXPECT_EQ(listing(),
            "mov sil, [rax]\nmov [r9], al\nmov si, [rax]\nmov [r9], ax\nmov esi, [rax]\nmov [r9], eax\n"
            "mov rsi, [rax]\nmov [r9], rax\ncmp dil, [rax]\ncmp rdi, [rax]\ninc ax\ndec r9\n"
            "movsx rcx, r9w\nmovsx rcx, word ptr [rax]\nmovsxd rcx, r9d\nmovsxd rcx, dword ptr [rax]\n"
            "mov rcx, r9\nmov rcx, [rax]\nrep movsb\nrep stosw\nrepne scasq\nrepe cmpsd\n");
}

TEST_F(EmitterTest, BytesOfTheUpperRegistersAreNotThoseOfAhAndItsKin) {
  e.mov8(rax, r11), e.mov8(rbp, rax), e.mov8(rbx, rcx), e.movzx8(rax, rax), e.movzx_ah(rcx), e.mov16(rdi, r10);
  EXPECT_EQ(listing(), "mov al, r11b\nmov bpl, al\nmov bl, cl\nmovzx eax, al\nmovzx ecx, ah\nmov di, r10w\n");
}

TEST_F(EmitterTest, FormsOfOneUserEach) {
  e.store_imm8(at(rax), 1), e.or_imm16(at(rax), 0x4000), e.add(rdx, at(rax)), e.and_mem(rax, at(r9));
  e.exclusive_or32(rax, at(rcx)), e.test32(at(rcx), rax), e.cmp32_imm8(at(rcx), 0), e.cmp(rax, at(rcx));
  e.lock(), e.bit_test(BitTest::bts, 4, at(r10), rcx), e.bit_test(BitTest::bt, 2, r11, rcx);
  e.tzcnt(rdx, rax), e.blsr(rax, r9), e.crc32(r10, rcx), e.rdtsc(), e.lfence(), e.hlt(), e.lahf_seto(), e.add7f_sahf();
  EXPECT_EQ(listing(),
            "mov byte ptr [rax], 0x01\nor word ptr [rax], 0x4000\nadd rdx, [rax]\nand rax, [r9]\n"
            "xor eax, [rcx]\ntest [rcx], eax\ncmp dword ptr [rcx], 0x00\ncmp rax, [rcx]\n"
            "lock bts [r10], ecx\nbt r11w, cx\n"
            "tzcnt rdx, rax\nblsr rax, r9\ncrc32 r10, rcx\nrdtsc\nlfence\nhlt\nlahf\nseto al\nadd al, 0x7F\nsahf\n");
}

TEST_F(EmitterTest, WhatIsTakenBackLeavesNoFixup) {
  std::vector<Fixup> fixups;
  e.begin(kPlace, &fixups);
  e.jmp(kPlace + 0x1000);
  const u32 kept = e.size();
  e.jmp(kPlace + 0x2000);
  e.rewind(kept);
  EXPECT_EQ(e.size(), kept);
  ASSERT_EQ(fixups.size(), 1u);
  EXPECT_EQ(fixups[0].value, kPlace + 0x1000);
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
}  // namespace trapline::engine::emit
