// Which accesses of a block share a look-up.
#include "engine/translate/sharing.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "engine/hostcode/lower.h"

namespace trapline::engine::translate {
namespace {

using hostcode::SharedLookup;
using hostcode::TranslatedInsn;
using hostcode::Treatment;

struct SharingTest : testing::Test {
  std::vector<TranslatedInsn> insns;
  hostcode::Context context;

  void add(std::initializer_list<u8> bytes, Treatment treatment = Treatment::plain) {
    TranslatedInsn& p = insns.emplace_back();
    ASSERT_EQ(isa::decode(bytes.begin(), bytes.size(), isa::CodeSize::bits64, isa::Vendor::intel, p.insn, p.raw),
              isa::DecodeStatus::ok);
    p.treatment = treatment;
  }
  void share() { share_lookups(context, insns); }
  bool shared(unsigned a, unsigned b) const {
    return insns[a].memory.slot != SharedLookup::kNone && insns[a].memory.slot == insns[b].memory.slot;
  }
};

TEST_F(SharingTest, FieldsOfOneStructureShareTheFirstOnesLookUp) {
  add({0x48, 0x8b, 0x43, 0x10});  // mov rax, [rbx+16]
  add({0x48, 0x89, 0x4b, 0x00});  // mov [rbx], rcx
  share();
  ASSERT_TRUE(shared(0, 1));
  EXPECT_TRUE(insns[0].memory.leads);
  EXPECT_FALSE(insns[1].memory.leads);
  EXPECT_TRUE(insns[0].memory.write) << "one of them writes";
  EXPECT_EQ(insns[0].memory.lo, -16);
  EXPECT_EQ(insns[0].memory.span, 24);
}

TEST_F(SharingTest, AChangedBaseDoesNotShareUnlessByAKnownAmount) {
  add({0x48, 0x8b, 0x03});        // mov rax, [rbx]
  add({0x48, 0x83, 0xc3, 0x08});  // add rbx, 8
  add({0x48, 0x8b, 0x03});        // mov rax, [rbx]
  add({0x48, 0x01, 0xcb});        // add rbx, rcx
  add({0x48, 0x8b, 0x03});        // mov rax, [rbx]
  share();
  EXPECT_TRUE(shared(0, 2));
  EXPECT_EQ(insns[4].memory.slot, SharedLookup::kNone);
}

TEST_F(SharingTest, WhatLiesTooFarApartDoesNotShare) {
  add({0x48, 0x8b, 0x03});                    // mov rax, [rbx]
  add({0x48, 0x8b, 0x83, 0xf8, 0x01, 0, 0});  // mov rax, [rbx+504]
  add({0x48, 0x8b, 0x83, 0x00, 0x02, 0, 0});  // mov rax, [rbx+512]
  share();
  EXPECT_TRUE(shared(0, 1));
  EXPECT_FALSE(shared(0, 2));
}

// A call may end TLB entries.
TEST_F(SharingTest, NothingIsSharedOverACall) {
  add({0x48, 0x8b, 0x03});
  add({0x0f, 0xa2}, Treatment::semantic);  // cpuid
  add({0x48, 0x8b, 0x03});
  share();
  EXPECT_FALSE(shared(0, 2));
}

TEST_F(SharingTest, SegmentsWithABaseAndCutAddressesAreOnTheirOwn) {
  add({0x65, 0x48, 0x8b, 0x03});  // mov rax, gs:[rbx]
  add({0x65, 0x48, 0x8b, 0x03});
  add({0x67, 0x48, 0x8b, 0x03});  // mov rax, [ebx]
  add({0x67, 0x48, 0x8b, 0x03});
  share();
  EXPECT_FALSE(shared(0, 1));
  EXPECT_FALSE(shared(2, 3));
}

TEST_F(SharingTest, PushesShareWithTheFrame) {
  add({0x50}, Treatment::special);      // push rax
  add({0x53}, Treatment::special);      // push rbx
  add({0x48, 0x8b, 0x44, 0x24, 0x08});  // mov rax, [rsp+8]: what the first one pushed
  share();
  EXPECT_NE(insns[0].stack.slot, SharedLookup::kNone);
  EXPECT_EQ(insns[0].stack.slot, insns[1].stack.slot);
  EXPECT_EQ(insns[0].stack.slot, insns[2].memory.slot);
  EXPECT_EQ(insns[0].stack.span, 16);
}

TEST_F(SharingTest, NoneIn32BitCode) {
  context.bits64 = false;
  add({0x48, 0x8b, 0x03});
  add({0x48, 0x8b, 0x03});
  share();
  EXPECT_FALSE(shared(0, 1));
}

}  // namespace
}  // namespace trapline::engine::translate
