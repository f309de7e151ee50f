#include "isa/insn.h"

#include <gtest/gtest.h>

#include <vector>

namespace trapline::isa {
namespace {

Insn decoded(std::vector<u8> bytes, CodeSize size = CodeSize::bits64) {
  Insn insn;
  EXPECT_EQ(decode(bytes.data(), bytes.size(), size, host_vendor(), insn), DecodeStatus::ok);
  EXPECT_EQ(insn.length, bytes.size());
  return insn;
}

TEST(Decode, HighByteRegistersAreTheLowRegistersWithAFlag) {
  const Insn insn = decoded({0x88, 0xe5});  // mov ch, ah
  EXPECT_EQ(insn.op[0].reg, rcx);
  EXPECT_TRUE(insn.op[0].high8);
  EXPECT_EQ(insn.op[1].reg, rax);
  EXPECT_TRUE(insn.op[1].high8);
}

TEST(Decode, RexTurnsHighByteRegistersIntoTheNewLowOnes) {
  const Insn insn = decoded({0x40, 0x88, 0xe5});  // mov bpl, spl
  EXPECT_EQ(insn.op[0].reg, rbp);
  EXPECT_FALSE(insn.op[0].high8);
  EXPECT_EQ(insn.op[1].reg, rsp);
  const Insn high = decoded({0x45, 0x88, 0xfe});  // mov r14b, r15b
  EXPECT_EQ(high.op[0].reg, r14);
  EXPECT_EQ(high.op[1].reg, r15);
}

TEST(Decode, MemoryOperandWithSegmentBaseIndexScale) {
  const Insn insn = decoded({0x65, 0x48, 0x8b, 0x44, 0x8b, 0xf8});  // mov rax, gs:[rbx+rcx*4-8]
  EXPECT_EQ(insn.mem.seg, Seg::gs);
  EXPECT_EQ(insn.mem.base, rbx);
  EXPECT_EQ(insn.mem.index, rcx);
  EXPECT_EQ(insn.mem.scale_log2, 2);
  EXPECT_EQ(insn.mem.disp, -8);
  EXPECT_EQ(insn.mem.bytes, 8);
}

TEST(Decode, SibWithoutBaseIgnoresRexB) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x67, 0x41, 0x8b, 0x04, 0x25, 0x78, 0x56, 0x34, 0x12},
                                       {0x41, 0x8b, 0x04, 0x25, 0x78, 0x56, 0x34, 0x12}}) {
    const Insn insn = decoded(bytes);  // mov eax, [0x12345678]
    EXPECT_EQ(insn.mem.base, kNoReg);
    EXPECT_EQ(insn.mem.index, kNoReg);
    EXPECT_EQ(insn.mem.disp, 0x12345678);
  }
}

TEST(Decode, RipRelativeKeepsTheDisplacement) {
  const Insn insn = decoded({0x8b, 0x05, 0x10, 0x00, 0x00, 0x00});  // mov eax, [rip+0x10]
  EXPECT_EQ(insn.mem.base, kRegRip);
  EXPECT_EQ(insn.mem.disp, 0x10);
}

TEST(Decode, StackBaseDefaultsToSs) {
  EXPECT_EQ(decoded({0x8b, 0x45, 0x00}).mem.seg, Seg::ss);                    // mov eax, [rbp]
  EXPECT_EQ(decoded({0x8b, 0x45, 0x00}, CodeSize::bits32).mem.seg, Seg::ss);  // mov eax, [ebp]
  EXPECT_EQ(decoded({0x3e, 0x8b, 0x45, 0x00}, CodeSize::bits32).mem.seg, Seg::ds);
}

TEST(Decode, StringInstructionsReportTheSourceSegment) {
  const Insn movs = decoded({0x64, 0xf3, 0x48, 0xa5});  // rep movsq fs:
  EXPECT_EQ(movs.mem.seg, Seg::fs);
  EXPECT_TRUE(movs.rep);
  EXPECT_EQ(movs.operand_bytes, 8);
  EXPECT_EQ(decoded({0x26, 0xa6}, CodeSize::bits32).mem.seg, Seg::es);  // cmpsb es:
  EXPECT_EQ(decoded({0xa6}, CodeSize::bits32).mem.seg, Seg::ds);
  EXPECT_EQ(decoded({0xa6}, CodeSize::bits32).operand_bytes, 1);
  EXPECT_EQ(decoded({0x66, 0x6f}, CodeSize::bits32).operand_bytes, 2);  // outsw
  EXPECT_EQ(decoded({0x2e, 0xd7}, CodeSize::bits16).mem.seg, Seg::cs);  // xlat cs:
}

TEST(Decode, FarPointersAndEnterHaveTwoImmediates) {
  const Insn jmp = decoded({0xea, 0x78, 0x56, 0x34, 0x12, 0x08, 0x00}, CodeSize::bits32);
  EXPECT_EQ(jmp.imm, 0x12345678u);
  EXPECT_EQ(jmp.imm2, 8u);
  const Insn enter = decoded({0xc8, 0x10, 0x00, 0x03});
  EXPECT_EQ(enter.imm, 0x10u);
  EXPECT_EQ(enter.imm2, 3u);
}

TEST(Decode, ImmediatesAreSignExtended) {
  EXPECT_EQ(decoded({0x48, 0x83, 0xc0, 0xff}).imm, ~u64{0});                             // add rax, -1
  EXPECT_EQ(decoded({0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0x88}).imm, 0x8807060504030201u);  // mov rax, imm64
  EXPECT_EQ(decoded({0xeb, 0xfe}).imm, ~u64{1});                                         // jmp -2
}

TEST(Decode, TellsTruncatedFromInvalidFromTooLong) {
  Insn insn;
  const u8 part[] = {0x48, 0xb8, 1};
  EXPECT_EQ(decode(part, sizeof part, CodeSize::bits64, host_vendor(), insn), DecodeStatus::truncated);
  const u8 bad[] = {0x06};  // push es: not in 64-bit mode
  EXPECT_EQ(decode(bad, sizeof bad, CodeSize::bits64, host_vendor(), insn), DecodeStatus::invalid);
  const std::vector<u8> prefixes(15, 0x66);
  EXPECT_EQ(decode(prefixes.data(), prefixes.size(), CodeSize::bits64, host_vendor(), insn), DecodeStatus::too_long);
}

TEST(Decode, FeaturesThatAreNeverOfferedDecodeAsTheNopsTheyWere) {
  EXPECT_EQ(decoded({0xf3, 0x0f, 0x1e, 0xfa}).mnemonic, ZYDIS_MNEMONIC_NOP);  // endbr64
}

TEST(Decode, FormatsForTraces) {
  const Insn insn = decoded({0xe8, 0x05, 0x00, 0x00, 0x00});
  char text[96];
  ASSERT_GT(format(insn, 0x1000, text, sizeof text), 0u);
  EXPECT_STREQ(text, "call 0x000000000000100A");
}

}  // namespace
}  // namespace trapline::isa
