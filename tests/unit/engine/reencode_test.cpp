// 32-bit code encoded again for the host's 64-bit mode: what was ignored there must not count here.
#include "engine/emit/reencode.h"

#include <gtest/gtest.h>

#include <vector>

namespace trapline::engine::emit::test {
namespace {

using Bytes = std::vector<u8>;

struct Rewritten {
  bool done = false;
  Bytes bytes;
  ZydisDecodedInstruction insn{};  // as 64-bit code
  ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

// With the memory operand at [R10 + RCX], as look-ups leave it.
Rewritten rewrite(Bytes bytes) {
  Rewritten r;
  const u8 length = static_cast<u8>(bytes.size());
  bytes.resize(16);
  isa::Insn insn;
  isa::Raw raw;
  EXPECT_EQ(isa::decode(bytes.data(), length, isa::CodeSize::bits32, isa::host_vendor(), insn, raw),
            isa::DecodeStatus::ok);
  Fields f = guest_fields(raw);
  if (f.memory) f.mem = at(r10, rcx, 0);
  Emitter out;
  out.begin(0x1000);
  r.done = reencode(raw, bytes.data(), f, out);
  r.bytes.assign(out.data(), out.data() + out.size());
  if (!r.done) return r;
  EXPECT_TRUE(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_for(8), r.bytes.data(), r.bytes.size(), &r.insn, r.op)));
  return r;
}

TEST(Reencode, WIsIgnoredWhereItWouldSelectA64BitRegister) {
  const Rewritten rorx = rewrite({0xC4, 0xE3, 0xFB, 0xF0, 0xC1, 7});  // RORX EAX, ECX, 7 with W = 1
  ASSERT_TRUE(rorx.done);
  EXPECT_EQ(rorx.insn.mnemonic, ZYDIS_MNEMONIC_RORX);
  EXPECT_EQ(rorx.op[0].size, 32);
  const Rewritten shrx = rewrite({0xC4, 0xE2, 0xFB, 0xF7, 0x03});  // SHRX EAX, [EBX], EAX with W = 1
  ASSERT_TRUE(shrx.done);
  EXPECT_EQ(shrx.op[1].size, 32);
  const Rewritten vmovd = rewrite({0xC4, 0xE1, 0xF9, 0x7E, 0x03});  // VMOVD [EBX], XMM0 with W = 1
  ASSERT_TRUE(vmovd.done);
  EXPECT_EQ(vmovd.insn.mnemonic, ZYDIS_MNEMONIC_VMOVD);
  EXPECT_EQ(vmovd.op[0].size, 32) << "the look-up was of 4 bytes";
}

TEST(Reencode, WStaysWhereItIsPartOfTheOpcode) {
  const Rewritten fma = rewrite({0xC4, 0xE2, 0xF9, 0x98, 0xC1});  // VFMADD132PD XMM0, XMM0, XMM1
  ASSERT_TRUE(fma.done);
  EXPECT_EQ(fma.insn.mnemonic, ZYDIS_MNEMONIC_VFMADD132PD);
}

TEST(Reencode, ARegisterInTheImmediateHasThreeBits) {
  const Rewritten blend = rewrite({0xC4, 0xE3, 0x79, 0x4A, 0xC1, 0xA0});  // VBLENDVPS XMM0, XMM0, XMM1, XMM2 or 10
  ASSERT_TRUE(blend.done);
  EXPECT_EQ(blend.op[3].reg.value, ZYDIS_REGISTER_XMM2);
}

}  // namespace
}  // namespace trapline::engine::emit::test
