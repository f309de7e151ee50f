// What CPUID offers, the engine executes: the small instructions that no other test here runs.
#include <gtest/gtest.h>

#include "interpret_vm.h"

namespace trapline::engine::test {
namespace {

constexpr const char* kHideAll = "-movdiri,-movdir64b,-clwb,-clflushopt,-serialize";

// Runs `bytes` and a HLT behind them. The vector that was raised, or -1.
int vector_of(InterpretVm& vm, std::initializer_list<int> bytes) {
  vm.put(InterpretVm::kCode, bytes);
  vm.at<u8>(InterpretVm::kCode + bytes.size()) = 0xf4;
  vm.engine->flush();  // the bytes were not written by the guest
  vm.cpu.rip = InterpretVm::kCode;
  vm.cpu.activity = Activity::running;
  EXPECT_EQ(vm.run(), Exit::halted);
  return vm.vector();
}

// As the host has them, and hidden.
struct Offered : testing::TestWithParam<const char*> {
  InterpretVm vm{Start::long64};
  void SetUp() override {
    auto made = Cpuid::make({.features = GetParam()});
    ASSERT_TRUE(made) << made.error();
    vm.cpuid = std::move(*made);
    vm.reg(isa::rbx) = InterpretVm::kData;
    vm.reg(isa::rcx) = 0x1122334455667788;
  }
  void expect_executed_if_offered(Feature feature, std::initializer_list<int> bytes) {
    EXPECT_EQ(vector_of(vm, bytes), vm.cpuid.has(feature) ? -1 : 6);
  }
};
INSTANTIATE_TEST_SUITE_P(Policies, Offered, testing::Values("", kHideAll));

TEST_P(Offered, Movdiri) {
  expect_executed_if_offered(Feature::movdiri, {0x48, 0x0f, 0x38, 0xf9, 0x0b});  // movdiri [rbx], rcx
  EXPECT_EQ(vm.at<u64>(InterpretVm::kData), vm.cpuid.has(Feature::movdiri) ? 0x1122334455667788u : 0u);
}

TEST_P(Offered, Movdir64b) {
  for (u64 i = 0; i < 64; i++) vm.at<u8>(InterpretVm::kData + 0x100 + i) = static_cast<u8>(i);
  vm.reg(isa::rax) = InterpretVm::kData + 0x40;
  vm.reg(isa::rdx) = InterpretVm::kData + 0x100;
  expect_executed_if_offered(Feature::movdir64b, {0x66, 0x0f, 0x38, 0xf8, 0x02});  // movdir64b rax, [rdx]
  if (vm.cpuid.has(Feature::movdir64b)) {
    for (u64 i = 0; i < 64; i++) EXPECT_EQ(vm.at<u8>(InterpretVm::kData + 0x40 + i), i);
    vm.reg(isa::rax) += 8;
    EXPECT_EQ(vector_of(vm, {0x66, 0x0f, 0x38, 0xf8, 0x02}), 13) << "the destination must be aligned";
  }
}

TEST_P(Offered, CacheLines) {
  expect_executed_if_offered(Feature::clwb, {0x66, 0x0f, 0xae, 0x33});        // clwb [rbx]
  expect_executed_if_offered(Feature::clflushopt, {0x66, 0x0f, 0xae, 0x3b});  // clflushopt [rbx]
  EXPECT_EQ(vector_of(vm, {0x0f, 0xae, 0x3b}), -1) << "clflush [rbx]";
  EXPECT_EQ(vector_of(vm, {0x0f, 0x1c, 0x03}), -1) << "cldemote [rbx]: a NOP where it is not offered";
  vm.reg(isa::rbx) = u64{1} << 60;
  EXPECT_EQ(vector_of(vm, {0x0f, 0x1c, 0x03}), -1) << "cldemote never faults";
  EXPECT_EQ(vector_of(vm, {0x0f, 0xae, 0x3b}), 13) << "clflush does";
}

TEST_P(Offered, Serialize) { expect_executed_if_offered(Feature::serialize, {0x0f, 0x01, 0xe8}); }

TEST_P(Offered, WriteBackWithoutInvalidate) {
  EXPECT_EQ(vector_of(vm, {0xf3, 0x0f, 0x09}), -1) << "wbnoinvd";
  EXPECT_EQ(vector_of(vm, {0x0f, 0x09}), -1) << "wbinvd";
}

}  // namespace
}  // namespace trapline::engine::test
