// What a guest can make a translator keep.
#include <gtest/gtest.h>

#include "engine/hostcode/host.h"
#include "engine/registry.h"
#include "interpret_vm.h"
#include "support/engines.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

TEST(Translator, IsNotOfferedWhereRetAndSigreturnAreChecked) {
  EXPECT_EQ(hostcode::missing_with(true, false), "");
  EXPECT_NE(hostcode::missing_with(true, true).find("shadow stack"), std::string::npos);
  EXPECT_EQ(hostcode::missing_with(false, true), "BMI2");
}

// Blocks of one short jump each: nearly nothing of host code, and a record for every two bytes. Beyond the bound they
// are forgotten, so that the second time round they are translated again.
TEST(Translator, RecordsOfTinyBlocksAreBounded) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  constexpr u64 kFrom = 0x300000, kBytes = 0x20000;
  for (u64 at = 0; at < kBytes; at += 2) vm.put(kFrom + at, {0xEB, 0x00});
  vm.put(kFrom + kBytes, {0xF4});
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1, .most_records = 2 * MiB});
  u64 translated[2];
  for (u64& n : translated) {
    const u64 before = vm.cpu.count.blocks_translated;
    vm.cpu.activity = cpu::Activity::running;
    vm.cpu.rip = kFrom;
    EXPECT_EQ(vm.run(kBytes), Exit::halted);
    n = vm.cpu.count.blocks_translated - before;
  }
  EXPECT_GT(translated[0], kBytes / 4) << "they were not translated";
  EXPECT_GT(translated[1], kBytes / 4) << "they were not forgotten";
}

// Bytes that are the same keep their translation, unless their page is given up.
TEST(Translator, AFrameThatIsGivenUpIsTranslatedAnew) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xFF, 0xC0, 0xF4});  // INC EAX; HLT
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  const auto translated_by = [&](auto change) {
    change();
    const u64 before = vm.cpu.count.blocks_translated;
    vm.cpu.activity = cpu::Activity::running;
    vm.cpu.rip = vm.kCode;
    EXPECT_EQ(vm.run(10), Exit::halted);
    return vm.cpu.count.blocks_translated - before;
  };
  EXPECT_EQ(translated_by([] {}), 1u);
  const u64 frame = vm.kCode / kPageSize;
  EXPECT_EQ(translated_by([&] { vm.cpu.code->written(frame, vm.kCode % kPageSize, 1); }), 0u);
  EXPECT_EQ(translated_by([&] { vm.cpu.code->give_up(frame); }), 1u);
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 3u);
}

// Zydis has mnemonics for them that every CPU has, in another encoding.
TEST(Translator, EncodingsOfExtensionsThatAreGoneAreUndefined) {
  const std::initializer_list<int> all[] = {
      {0xC5, 0xFA, 0xB8, 0xC1},  // POPCNT, TZCNT and LZCNT of Knights Corner
      {0xC5, 0xFA, 0xBC, 0xC1},
      {0xC5, 0xFA, 0xBD, 0xC1},
      {0x8F, 0xEA, 0x78, 0x10, 0xC1, 0x04, 0x04, 0x00, 0x00},  // TBM's BEXTR
      {0x8F, 0xE9, 0x78, 0x01, 0xC9},                          // BLCFILL
  };
  for (const char* engine : trapline::test::kEngines) {
    if (!find_engine(engine)->missing().empty()) continue;
    for (const auto& bytes : all) {
      InterpretVm vm{Start::long64};
      vm.put(vm.kCode, bytes);
      vm.engine = find_engine(engine)->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
      EXPECT_EQ(vm.run(10), Exit::halted);
      EXPECT_EQ(vm.cpu.rip, vm.kHandlers + 16 * 6 + 1) << engine << ": " << *(bytes.begin() + 2);
    }
  }
}

// Its return address goes where it has read its target from.
TEST(Translator, ACallToANonCanonicalAddressHasNotHappened) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xFF, 0x54, 0x24, 0xF8, 0xF4});  // CALL [RSP - 8]; HLT
  vm.at<u64>(vm.kStack - 8) = u64{1} << 62;
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  EXPECT_EQ(vm.run(10), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(vm.at<u64>(vm.cpu.gpr[isa::rsp] + 8), vm.kCode) << "the RIP that the frame has";
  EXPECT_EQ(vm.at<u64>(vm.cpu.gpr[isa::rsp] + 32), vm.kStack) << "the RSP that the frame has";
}

// The slot below RSP then: Intel's processors have written it, AMD's have not.
TEST(Translator, WhatACallToANonCanonicalAddressLeavesBelowTheStack) {
  SKIP_UNLESS_OFFERED("translate");
  for (const isa::Vendor vendor : trapline::test::kVendors)
    for (const std::vector<int>& call : {std::vector<int>{0xFF, 0xD6, 0x90}, {0x41, 0xFF, 0xD2}, {0xFF, 0x17, 0x90}}) {
      InterpretVm vm{Start::long64};
      vm.cpuid = trapline::test::policy_of(vendor);
      vm.reg(isa::rsi) = vm.reg(isa::r10) = vm.at<u64>(vm.kData) = u64{1} << 60;
      vm.reg(isa::rdi) = vm.kData;
      vm.at<u64>(vm.kStack - 8) = 0x5555;
      // The handler on a stack of its own (IST 1).
      vm.cpu.tr.base = vm.kData + 0x1000, vm.cpu.tr.limit = 0x67, vm.cpu.tr.usable = true;
      vm.put<u64>(vm.cpu.tr.base + 0x24, vm.kStack - 0x1000);
      vm.at<u8>(vm.kIdt + 13 * 16 + 4) = 1;
      for (unsigned i = 0; i < 3; i++) vm.at<u8>(vm.kCode + i) = static_cast<u8>(call[i]);
      vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
      EXPECT_EQ(vm.run(10), Exit::halted);
      ASSERT_EQ(vm.vector(), 13);
      EXPECT_GT(vm.cpu.count.blocks_translated, 0u);
      const u64 written = vm.kCode + (call[2] == 0x90 ? 2 : 3);
      EXPECT_EQ(vm.at<u64>(vm.kStack - 8), vendor == isa::Vendor::amd ? 0x5555 : written);
    }
}

// In line while all exceptions stay masked; what unmasks one is seen by the instruction that raises it.
TEST(Translator, ControlWordsOfTheX87) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  vm.put(vm.kCode, {0xDB, 0xE3,                          // fninit
                    0xEB, 0x00,                          // jmp +0: a block of its own
                    0xD9, 0x2F, 0xDD, 0x47, 0x08,        // fldcw [rdi]; fld qword [rdi + 8]
                    0xDB, 0x5F, 0x10, 0xD9, 0x6F, 0x02,  // fistp dword [rdi + 16]; fldcw [rdi + 2]
                    0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9,  // fld1; fldz; fdivp
                    0x9B, 0xF4});                        // fwait; hlt
  vm.reg(isa::rdi) = vm.kData;
  vm.at<u16>(vm.kData) = 0x0f7f;      // towards zero
  vm.at<u16>(vm.kData + 2) = 0x037b;  // division by zero is not masked
  vm.at<double>(vm.kData + 8) = 2.9;
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  EXPECT_EQ(vm.run(100), Exit::halted);
  EXPECT_EQ(vm.at<u32>(vm.kData + 16), 2u);
  EXPECT_EQ(vm.vector(), 16);
  EXPECT_EQ(vm.at<u64>(vm.cpu.gpr[isa::rsp]), vm.kCode + 21) << "at FWAIT";
}

}  // namespace
}  // namespace trapline::engine::test
