// What a guest can make a translator keep.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "engine/registry.h"
#include "engine/translate/host.h"
#include "engine/translate/options.h"
#include "interpret_vm.h"
#include "support/engines.h"

namespace trapline::engine::test {
namespace {

u64 resident_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::stoull(line.substr(6)) / 1024;
  return 0;
}

TEST(Translator, IsNotOfferedWhereRetAndSigreturnAreChecked) {
  EXPECT_EQ(translate::missing_with(true, false), "");
  EXPECT_NE(translate::missing_with(true, true).find("shadow stack"), std::string::npos);
  EXPECT_EQ(translate::missing_with(false, true), "BMI2");
}

// Blocks of one short jump each: nearly nothing of host code, and a record for every two bytes.
TEST(Translator, RecordsOfTinyBlocksAreBounded) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  constexpr u64 kFrom = 0x300000, kBytes = 0x120000;
  for (u64 at = 0; at < kBytes; at += 2) vm.put(kFrom + at, {0xEB, 0x00});
  vm.put(kFrom + kBytes, {0xF4});
  translate::hot_threshold = 1;
  translate::count_instructions = true;
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {});
  const u64 before = resident_mib();
  vm.cpu.rip = kFrom;
  EXPECT_EQ(vm.run(kBytes), Exit::halted);
  EXPECT_GT(vm.cpu.count.blocks_translated, kBytes / 4) << "they were not translated";
  // 96 MiB of records, 64 MiB of code, 64 MiB of decoded blocks, and what malloc adds.
  EXPECT_LT(resident_mib() - before, 300u);
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
      translate::hot_threshold = 1;
      vm.engine = find_engine(engine)->make(vm.cpu, vm.arena, {});
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
  translate::hot_threshold = 1;
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {});
  EXPECT_EQ(vm.run(10), Exit::halted);
  EXPECT_EQ(vm.vector(), 13);
  EXPECT_EQ(vm.at<u64>(vm.cpu.gpr[isa::rsp] + 8), vm.kCode) << "the RIP that the frame has";
  EXPECT_EQ(vm.at<u64>(vm.cpu.gpr[isa::rsp] + 32), vm.kStack) << "the RSP that the frame has";
}

}  // namespace
}  // namespace trapline::engine::test
