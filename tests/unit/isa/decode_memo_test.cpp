// What is remembered of an encoding must be what decoding it anew gives, whatever numbers stand in it.
#include "isa/decode_memo.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "support/vendors.h"
#include "unit/isa/encodings.h"

namespace trapline::isa {
namespace {

using Bytes = std::array<u8, 16>;

std::string text(const Bytes& b) {
  std::string s;
  for (const u8 x : b) s += fmt::format("{:02x} ", x);
  return s;
}

bool same(const Operand& a, const Operand& b) {
  return a.kind == b.kind && a.reg == b.reg && a.high8 == b.high8 && a.read == b.read && a.written == b.written &&
         a.bytes == b.bytes;
}

bool same(const MemOperand& a, const MemOperand& b) {
  return a.seg == b.seg && a.base == b.base && a.index == b.index && a.scale_log2 == b.scale_log2 &&
         a.address_bytes == b.address_bytes && a.vsib == b.vsib && a.bytes == b.bytes && a.disp == b.disp;
}

bool same(const Insn& a, const Insn& b) {
  for (unsigned i = 0; i < a.op.size(); i++)
    if (!same(a.op[i], b.op[i])) return false;
  return a.mnemonic == b.mnemonic && a.code_size == b.code_size && a.vendor == b.vendor && a.length == b.length &&
         a.operand_bytes == b.operand_bytes && a.address_bytes == b.address_bytes && a.stack_bytes == b.stack_bytes &&
         a.operand_count == b.operand_count && a.lock == b.lock && a.rep == b.rep && a.repne == b.repne &&
         a.sensitive == b.sensitive && same(a.mem, b.mem) && a.imm == b.imm && a.imm2 == b.imm2 && a.bytes == b.bytes;
}

// Zydis clears its structures first: their padding is part of neither answer.
bool same(const Raw& a, const Raw& b) {
  return std::memcmp(&a.insn, &b.insn, sizeof a.insn) == 0 &&
         std::memcmp(a.op, b.op, a.insn.operand_count * sizeof a.op[0]) == 0;
}

void expect_same(const Bytes& bytes, Vendor vendor) {
  Insn memo, plain;
  Raw memo_raw, plain_raw;
  const DecodeStatus a = decode_often(bytes.data(), 15, CodeSize::bits64, vendor, memo, memo_raw);
  const DecodeStatus b = decode(bytes.data(), 15, CodeSize::bits64, vendor, plain, plain_raw);
  ASSERT_EQ(a, b) << text(bytes);
  if (a != DecodeStatus::ok) return;
  ASSERT_TRUE(same(memo, plain)) << text(bytes);
  ASSERT_TRUE(same(memo_raw, plain_raw)) << text(bytes);
}

class DecodeMemo : public ::testing::TestWithParam<Vendor> {};

// Every encoding that Zydis knows, with eight choices of what stands behind its form.
TEST_P(DecodeMemo, EveryEncodingWithAnyNumbers) {
  std::mt19937_64 random{1};
  u64 tried = 0;
  for_each_encoding([&](const ZydisDecodedInstruction& insn, const ZydisDecodedOperand*) {
    if (insn.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 || HasFatalFailure()) return;
    Bytes bytes{};
    const auto known = current_encoding();
    std::copy_n(known.begin(), std::min<std::size_t>(known.size(), 15), bytes.begin());
    unsigned form = insn.length;
    if (insn.raw.disp.size) form = std::min<unsigned>(form, insn.raw.disp.offset);
    for (const auto& imm : insn.raw.imm)
      if (imm.size) form = std::min<unsigned>(form, imm.offset);
    for (int n = 0; n < 8; n++) {
      for (unsigned i = form; i < 15; i++)
        bytes[i] = n == 0 ? 0 : n == 1 ? 0xff : n == 2 ? 0x80 : static_cast<u8>(random());
      expect_same(bytes, GetParam());
      tried++;
    }
  });
  EXPECT_GT(tried, 20'000u);
}

// Bytes as they come, with prefixes, maps and ModRM bytes that are met often: most forms many times, in each other's way.
TEST_P(DecodeMemo, RandomBytes) {
  std::mt19937_64 random{2};
  const u8 prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0x3e, 0x36, 0x26};
  for (int n = 0; n < 400'000 && !HasFatalFailure(); n++) {
    Bytes bytes;
    for (u8& b : bytes) b = static_cast<u8>(random());
    unsigned at = 0;
    while (random() % 3 == 0 && at < 5) bytes[at++] = prefixes[random() % std::size(prefixes)];
    if (random() % 2) bytes[at++] = static_cast<u8>(0x40 | (random() & 15));
    switch (random() % 8) {
      case 0:
        bytes[at++] = 0x0f;
        break;
      case 1:
        bytes[at++] = 0x0f;
        bytes[at++] = random() % 2 ? 0x38 : 0x3a;
        break;
      case 2:
        bytes[at++] = random() % 2 ? 0xc5 : 0xc4;
        break;
      case 3:
        bytes[at++] = 0x62;
        break;
      default:
        break;
    }
    if (random() % 4 == 0)
      for (unsigned i = at + 2; i < 15; i++) bytes[i] = random() % 2 ? 0 : 0xff;
    for (int again = 0; again < 3; again++) {  // the same form, most likely
      for (unsigned i = 15; i-- > at + 3;) bytes[i] = static_cast<u8>(random());
      expect_same(bytes, GetParam());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vendors, DecodeMemo, ::testing::Values(Vendor::intel, Vendor::amd),
                         [](const auto& tested) { return tested.param == Vendor::amd ? "amd" : "intel"; });

TEST(DecodeMemoAtAnEnd, TheLastBytesOfAPageAreDecodedAsEver) {
  const Bytes bytes{0x48, 0x8b, 0x44, 0x24, 0x08};
  Insn out;
  Raw raw;
  for (int n = 0; n < 3; n++) {
    EXPECT_EQ(decode_often(bytes.data(), 15, CodeSize::bits64, Vendor::intel, out, raw), DecodeStatus::ok);
    EXPECT_EQ(decode_often(bytes.data(), 4, CodeSize::bits64, Vendor::intel, out, raw), DecodeStatus::truncated);
    EXPECT_EQ(decode_often(bytes.data(), 5, CodeSize::bits64, Vendor::intel, out, raw), DecodeStatus::ok);
    EXPECT_EQ(out.mem.disp, 8);
  }
}

}  // namespace
}  // namespace trapline::isa
