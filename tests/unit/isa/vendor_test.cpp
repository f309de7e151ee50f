// What bytes are for one vendor and for the other. Lengths and meanings of the AMD column were measured on a Zen 4 and
// a Zen 5; Intel's are the SDM's. Both run on every host: nothing is executed here.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "isa/insn.h"
#include "isa/raw.h"
#include "isa/reading.h"

namespace trapline::isa {
namespace {

struct Both {
  Insn intel, amd;
  DecodeStatus intel_status, amd_status;
};

Both both(const std::vector<u8>& bytes, CodeSize size = CodeSize::bits64) {
  Both b;
  b.intel_status = decode(bytes.data(), bytes.size(), size, Vendor::intel, b.intel);
  b.amd_status = decode(bytes.data(), bytes.size(), size, Vendor::amd, b.amd);
  return b;
}

std::string text(const Insn& insn, u64 address) {
  char buffer[96];
  return {buffer, format(insn, address, buffer, sizeof buffer)};
}

std::vector<u8> padded(std::vector<u8> bytes) {
  bytes.resize(15, 0);
  return bytes;
}

TEST(Vendor, OperandSizeOnNearBranches) {
  struct Case {
    std::vector<u8> bytes;
    unsigned intel, amd;  // lengths
  };
  for (const Case& c :
       {Case{{0x66, 0xe8, 1, 0}, 6, 4}, Case{{0x66, 0xe9, 1, 0}, 6, 4}, Case{{0x66, 0x0f, 0x84, 1, 0}, 7, 5},
        Case{{0x66, 0xf2, 0xe9, 1, 0}, 7, 5}, Case{{0x48, 0x66, 0xe9, 1, 0}, 7, 5},  // this REX is none
        Case{{0x66, 0xeb, 1}, 3, 3}, Case{{0x66, 0x74, 1}, 3, 3}, Case{{0x66, 0xe2, 1}, 3, 3},
        Case{{0x66, 0xe3, 1}, 3, 3}, Case{{0x66, 0xc3}, 2, 2}, Case{{0x66, 0xc2, 8, 0}, 4, 4},
        Case{{0x66, 0xff, 0xe0}, 3, 3}, Case{{0x66, 0xff, 0xd0}, 3, 3}, Case{{0x66, 0xff, 0x27}, 3, 3},
        Case{{0x66, 0xff, 0x17}, 3, 3}}) {
    const Both b = both(padded(c.bytes));
    const std::string name = text(b.amd, 0);
    EXPECT_EQ(b.intel.length, c.intel) << name;
    EXPECT_EQ(b.amd.length, c.amd) << name;
    EXPECT_EQ(b.intel.operand_bytes, 8) << name;
    EXPECT_EQ(b.amd.operand_bytes, 2) << name;
    if (b.amd.op[0].kind == Operand::Kind::mem) {
      EXPECT_EQ(b.amd.mem.bytes, 2) << name;
    }
    if (b.amd.op[0].kind == Operand::Kind::mem || b.amd.op[0].kind == Operand::Kind::gpr) {
      EXPECT_EQ(b.amd.op[0].bytes, 2) << name;
    }
  }
}

TEST(Vendor, RexWWinsOverTheOperandSize) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x66, 0x48, 0xe9, 1, 0, 0, 0},
                                       {0x66, 0x48, 0xe8, 1, 0, 0, 0},
                                       {0x66, 0x48, 0x0f, 0x85, 1, 0, 0, 0},
                                       {0x66, 0x48, 0xeb, 1},
                                       {0x66, 0x48, 0xc3},
                                       {0x66, 0x48, 0xff, 0xe0}}) {
    const Both b = both(bytes);
    EXPECT_EQ(b.amd_status, DecodeStatus::ok);
    EXPECT_EQ(b.amd.length, bytes.size());
    EXPECT_EQ(b.amd.operand_bytes, 8) << text(b.amd, 0);
    EXPECT_EQ(b.intel.length, bytes.size());
  }
}

TEST(Vendor, ThirtyTwoBitCodeIsTheSameForBoth) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x66, 0xe9, 1, 0}, {0x66, 0xeb, 1}, {0x66, 0xc3}}) {
    const Both b = both(bytes, CodeSize::bits32);
    EXPECT_EQ(b.intel.length, bytes.size());
    EXPECT_EQ(b.amd.length, bytes.size());
    EXPECT_EQ(b.intel.operand_bytes, 2);
    EXPECT_EQ(b.amd.operand_bytes, 2);
  }
}

TEST(Vendor, NearBranchesSayWhereTheyGo) {
  const Both b = both(padded({0x66, 0xe9, 0x10, 0}));
  EXPECT_EQ(text(b.amd, 0x401000), "jmp 0x0000000000001014");  // cut
  EXPECT_EQ(text(b.intel, 0x401000), "jmp 0x0000000000401016");
  EXPECT_EQ(text(both({0x66, 0xff, 0xe0}).amd, 0), "jmp ax");
  EXPECT_EQ(text(both({0x66, 0x41, 0xff, 0xe1}).amd, 0), "jmp r9w");
}

TEST(Vendor, RepeatPrefixesChooseTheLoopOnAmd) {
  const ZydisMnemonic loope = ZYDIS_MNEMONIC_LOOPE, loopne = ZYDIS_MNEMONIC_LOOPNE;
  struct Case {
    std::vector<u8> bytes;
    ZydisMnemonic intel, amd;
  };
  for (const CodeSize size : {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64})
    for (const Case& c : {Case{{0xe0, 4}, loopne, loopne}, Case{{0xf2, 0xe0, 4}, loopne, loopne},
                          Case{{0xf3, 0xe0, 4}, loopne, loope}, Case{{0xf2, 0xe1, 4}, loope, loopne},
                          Case{{0xf3, 0xe1, 4}, loope, loope}, Case{{0xf2, 0xf3, 0xe0, 4}, loopne, loope},
                          Case{{0xf3, 0xf2, 0xe0, 4}, loopne, loopne}, Case{{0xf3, 0x67, 0xe0, 4}, loopne, loope},
                          Case{{0xf3, 0xe2, 4}, ZYDIS_MNEMONIC_LOOP, ZYDIS_MNEMONIC_LOOP}}) {
      const Both b = both(c.bytes, size);
      EXPECT_EQ(b.intel.mnemonic, c.intel);
      EXPECT_EQ(b.amd.mnemonic, c.amd);
      EXPECT_EQ(b.amd.length, c.bytes.size());
      EXPECT_EQ(b.amd.imm, 4u);
      EXPECT_EQ(b.amd.bytes[0], c.bytes[0]);  // what is told of it are the guest's bytes
    }
}

TEST(Vendor, PauseWithRexBIsAnExchangeForAmd) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0xf3, 0x41, 0x90},
                                       {0xf3, 0x49, 0x90},
                                       {0xf2, 0xf3, 0x41, 0x90},
                                       {0x66, 0xf3, 0x41, 0x90},
                                       {0xf3, 0xf3, 0x41, 0x90}}) {
    const Both b = both(bytes);
    EXPECT_EQ(b.intel.mnemonic, ZYDIS_MNEMONIC_PAUSE);
    EXPECT_EQ(b.intel.length, bytes.size());
    EXPECT_EQ(b.amd.mnemonic, ZYDIS_MNEMONIC_XCHG);
    EXPECT_EQ(b.amd.length, bytes.size());
    EXPECT_EQ(b.amd.op[0].reg, r8);
    EXPECT_EQ(b.amd.op[1].reg, rax);
  }
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x41, 0x90}, {0xf3, 0xf2, 0x41, 0x90}})
    EXPECT_EQ(both(bytes).intel.mnemonic, ZYDIS_MNEMONIC_XCHG) << "the last prefix counts";
  for (const std::vector<u8>& bytes : {std::vector<u8>{0xf3, 0x90}, {0xf3, 0x48, 0x90}, {0xf3, 0x46, 0x90}})
    EXPECT_EQ(both(bytes).amd.mnemonic, ZYDIS_MNEMONIC_PAUSE);
}

// The CPU that runs this is the judge.
TEST(Vendor, PauseWithRexBIsWhatThisCpuMakesOfIt) {
  u64 rax_value = 1, r8_value = 2;
  asm volatile("mov %1, %%r8; .byte 0xf3, 0x41, 0x90; mov %%r8, %1" : "+a"(rax_value), "+r"(r8_value) : : "r8");
  const Both b = both({0xf3, 0x41, 0x90});
  const Insn& here = host_vendor() == Vendor::amd ? b.amd : b.intel;
  EXPECT_EQ(here.mnemonic, rax_value == 2 ? ZYDIS_MNEMONIC_XCHG : ZYDIS_MNEMONIC_PAUSE);
}

TEST(Vendor, PrefetchOfARegister) {
  for (const CodeSize size : {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64})
    for (unsigned reg = 0; reg < 8; reg++) {
      const Both b = both({0x0f, 0x0d, static_cast<u8>(0xc0 | reg << 3)}, size);
      EXPECT_EQ(b.intel_status, DecodeStatus::ok);
      EXPECT_EQ(b.intel.mnemonic, ZYDIS_MNEMONIC_NOP);
      EXPECT_EQ(b.amd_status, DecodeStatus::invalid);
    }
  EXPECT_EQ(both({0x0f, 0x0d, 0x0f}).amd_status, DecodeStatus::ok);  // prefetchw [rdi]
  EXPECT_EQ(both({0x0f, 0x18, 0xc0}).amd_status, DecodeStatus::ok);
}

TEST(Vendor, UndefinedOpcodesHaveNoModrmOnAmd) {
  for (const u8 opcode : {0xff, 0xb9}) {
    const Both whole = both({0x0f, opcode, 0x44, 0x24, 0x08});
    EXPECT_EQ(whole.intel.length, 5);
    EXPECT_EQ(whole.amd.length, 2);
    EXPECT_EQ(whole.amd.operand_count, 0);
    // At the end of what can be read AMD's CPU need not look further.
    const Both end = both({0x67, 0x0f, opcode});
    EXPECT_EQ(end.intel_status, DecodeStatus::truncated);
    EXPECT_EQ(end.amd_status, DecodeStatus::ok);
    EXPECT_EQ(end.amd.length, 3);
  }
  EXPECT_EQ(both({0x0f, 0x0b}).intel.length, 2);
  EXPECT_EQ(both({0x0f}).amd_status, DecodeStatus::truncated);
}

TEST(Vendor, FarPointersWithRexW) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x48, 0xff, 0x2f},
                                       {0x48, 0xff, 0x1f},
                                       {0x48, 0x0f, 0xb2, 0x07},
                                       {0x48, 0x0f, 0xb4, 0x07},
                                       {0x4c, 0x0f, 0xb5, 0x03},
                                       {0x66, 0x48, 0x0f, 0xb5, 0x07}}) {
    const Both b = both(bytes);
    EXPECT_EQ(b.intel.mem.bytes, 10) << text(b.intel, 0);
    EXPECT_EQ(b.amd.mem.bytes, 6) << text(b.intel, 0);
    EXPECT_EQ(b.amd.operand_bytes, 8);  // what CALL pushes
  }
  const Both plain = both({0xff, 0x2f}), narrow = both({0x66, 0xff, 0x2f});
  EXPECT_EQ(plain.amd.mem.bytes, 6);
  EXPECT_EQ(plain.intel.mem.bytes, 6);
  EXPECT_EQ(narrow.amd.mem.bytes, 4);
  EXPECT_EQ(both({0xff, 0x27}).amd.mem.bytes, 8);  // near
}

TEST(Vendor, SixteenBitMovsxd) {
  const Both b = both({0x66, 0x63, 0x06});
  EXPECT_EQ(b.intel.mem.bytes, 2);
  EXPECT_EQ(b.intel.op[1].bytes, 2);
  EXPECT_EQ(b.amd.mem.bytes, 4);
  EXPECT_EQ(b.amd.op[1].bytes, 4);
  EXPECT_EQ(b.amd.op[0].bytes, 2);
}

TEST(Vendor, WhatTheTranslatorEncodesAgainIsConsistent) {
  Insn insn;
  Raw raw;
  const std::vector<u8> xchg{0xf3, 0x41, 0x90};
  ASSERT_EQ(decode(xchg.data(), xchg.size(), CodeSize::bits64, Vendor::amd, insn, raw), DecodeStatus::ok);
  EXPECT_EQ(raw.insn.mnemonic, ZYDIS_MNEMONIC_XCHG);
  EXPECT_EQ(raw.insn.length, 3);
  EXPECT_FALSE(raw.insn.attributes & ZYDIS_ATTRIB_HAS_REP);
}

TEST(Vendor, ReservedEncodingsHaveALengthAndAreRefused) {
  struct Case {
    std::vector<u8> bytes;
    unsigned length;
  };
  for (const Case& c :
       {Case{{0x62, 0xf1, 0x7c, 0x58, 0x28, 0xc1}, 6},        // vmovaps zmm0, zmm1 with b
        Case{{0x62, 0xf1, 0x7c, 0xc8, 0x58, 0x47, 0x01}, 7},  // vaddps zmm0, zmm0, [rdi+64] with z, no mask
        Case{{0xc4, 0xe3, 0x7d, 0x00, 0xc1, 0x05}, 6},        // vpermq ymm0, ymm1, 5 without W
        Case{{0xc4, 0x61, 0x7c, 0x41, 0xc2}, 5},              // kandw with R
        Case{{0xf0, 0x0f, 0x20, 0xc0}, 4},                    // mov eax, cr8 as AMD has it in 32-bit code
        Case{{0xf0, 0x0f, 0x00, 0x6f, 0x08}, 5}})
    for (const Vendor vendor : {Vendor::intel, Vendor::amd}) {
      const std::vector<u8> bytes = padded(c.bytes);
      Insn insn;
      EXPECT_EQ(decode(bytes.data(), bytes.size(), CodeSize::bits64, vendor, insn), DecodeStatus::invalid);
      EXPECT_EQ(Reader(CodeSize::bits64, vendor).reserved_length(bytes.data(), bytes.size()), c.length);
      EXPECT_EQ(Reader(CodeSize::bits64, vendor, true).reserved_length(bytes.data(), bytes.size()), c.length);
    }
  for (const std::vector<u8>& bytes : {padded({0x06}), padded({0xf0, 0x89, 0xc0}), padded({0xc4, 0xe3, 0x7d, 0xff})})
    EXPECT_EQ(Reader(CodeSize::bits64, Vendor::amd).reserved_length(bytes.data(), bytes.size()), 0u);
}

}  // namespace
}  // namespace trapline::isa
