// LAR, LSL, VERR, VERW and loads of data segments in translated code: what they look at is read each time.
#include <cstring>

#include "engine/registry.h"
#include "interpret_vm.h"
#include "support/engines.h"

namespace trapline::engine::test {
namespace {

// Descriptors of all sorts, in both rings, are asked about and loaded: as the interpreter does.
struct Descriptors : testing::Test {
  InterpretVm vm{Start::long64};
  void SetUp() override {
    SKIP_UNLESS_OFFERED("translate");
    vm.clock.instructions = false;
    vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  }
  static constexpr u64 kGdt = 0x6000;
  InterpretVm reference{Start::long64};
  void put(InterpretVm& to, unsigned index, u64 descriptor) { to.at<u64>(kGdt + index * 8) = descriptor; }
  void compare(const std::vector<int>& code, u64 selector, u8 cpl) {
    for (InterpretVm* one : {&reference, &vm}) {
      u64 at = one->kCode;
      for (const int b : code) one->at<u8>(at++) = static_cast<u8>(b);
      one->at<u8>(at) = 0xF4;
      one->cpu.cpl = cpl;
      one->seg(Seg::cs).selector = static_cast<u16>(8 | cpl);
      one->seg(Seg::cs).attr = static_cast<u16>((one->seg(Seg::cs).attr & ~0x60) | cpl << 5);
      one->cpu.activity = Activity::running;
      one->cpu.rip = one->kCode;
      one->cpu.arith = 0x8301;
      one->reg(isa::rsp) = one->kStack;
      one->reg(isa::rax) = one->reg(isa::r10) = 0x5555'0000'0000 | selector;
      one->reg(isa::rcx) = one->reg(isa::r11) = 0x1111'2222'3333'4444;
      one->cpu.tr.base = one->kData + 0x1000, one->cpu.tr.limit = 0x67, one->cpu.tr.usable = true;
      one->put<u64>(one->cpu.tr.base + 4, one->kStack - 0x1000);  // HLT in ring 1 goes there
      update_mode(one->cpu);
      EXPECT_EQ(one->run(), Exit::halted);
    }
    const auto what = ::testing::Message() << std::hex << "selector " << selector << ", CPL " << int{cpl} << ", opcode "
                                           << code[0] << ' ' << code[1] << ' ' << code[2];
    EXPECT_EQ(vm.cpu.rip, reference.cpu.rip) << what;
    EXPECT_EQ(vm.cpu.arith, reference.cpu.arith) << what;
    for (unsigned r = 0; r < 16; r++) EXPECT_EQ(vm.reg(r), reference.reg(r)) << what << ", register " << r;
    for (unsigned s = 0; s < 6; s++) EXPECT_EQ(vm.cpu.seg[s], reference.cpu.seg[s]) << what << ", segment " << s;
    EXPECT_EQ(std::memcmp(&vm.at<u8>(kGdt), &reference.at<u8>(kGdt), 0x200), 0) << what << ": accessed bits";
  }
};

TEST_F(Descriptors, OfAllSorts) {
  constexpr u64 kFlat = 0x00cf'0000'0000'ffff;
  std::vector<u64> gdt = {0, 0x00af'9b00'0000'ffff, 0x00cf'9300'0000'ffff};
  for (const u64 access :
       {0x93, 0x92, 0x91, 0xf3, 0xf2, 0xf1, 0xfb, 0xf9, 0xff, 0xfd, 0x9f, 0x73, 0xd3, 0xb3, 0xf7, 0x89, 0x82})
    gdt.push_back(kFlat | access << 40);
  gdt.push_back(0x1200'f312'3456'789a);  // a base, and a limit in bytes
  gdt.push_back(0xf240'f3ab'cdef'1234);
  for (InterpretVm* one : {&reference, &vm}) {
    one->cpu.gdtr = {kGdt, static_cast<u16>(gdt.size() * 8 - 1)};
    for (unsigned i = 0; i < gdt.size(); i++) put(*one, i, gdt[i]);
    one->clock.instructions = false;
  }
  const std::vector<std::vector<int>> codes = {
      {0x0F, 0x03, 0xC8},        // lsl ecx, eax
      {0x66, 0x0F, 0x03, 0xC8},  // lsl cx, ax
      {0x4D, 0x0F, 0x03, 0xDA},  // lsl r11, r10
      {0x0F, 0x02, 0xC8},        // lar ecx, eax
      {0x4D, 0x0F, 0x02, 0xDA},  // lar r11, r10
      {0x0F, 0x00, 0xE0},        // verr ax
      {0x41, 0x0F, 0x00, 0xEA},  // verw r10w
      {0x8E, 0xD8, 0x90},        // mov ds, eax
      {0x41, 0x8E, 0xC2},        // mov es, r10d
      {0x8E, 0xE0, 0x90},        // mov fs, eax
      {0x8E, 0xE8, 0x90},        // mov gs, eax
  };
  for (const std::vector<int>& code : codes)
    for (const u8 cpl : {u8{0}, u8{1}})
      for (u64 selector = 0; selector < gdt.size() * 8 + 8; selector += selector % 8 == 3 ? 5 : 1)
        for (int time = 0; time < 3; time++) {
          compare(code, selector, cpl);
          ASSERT_FALSE(HasFailure());
        }
}

// The entry is read each time, and the accessed bit is set.
TEST_F(Descriptors, WhatChangesIsSeen) {
  for (InterpretVm* one : {&reference, &vm}) {
    one->cpu.gdtr = {kGdt, 0x1f};
    put(*one, 1, 0x00af'9b00'0000'ffff);
    one->clock.instructions = false;
    put(*one, 3, 0x00cf'9300'0000'ffff);
  }
  for (const u64 descriptor :
       {0x00cf'9300'0000'ffff, 0x00cf'9300'0000'fffe, 0x00cf'9200'1000'ffff, 0x00cf'1300'0000'ffff}) {
    for (int time = 0; time < 2; time++) {
      for (InterpretVm* one : {&reference, &vm}) put(*one, 3, descriptor);
      compare({0x8E, 0xE0, 0x90}, 0x18, 0);
      compare({0x0F, 0x03, 0xC8}, 0x18, 0);
    }
  }
  for (InterpretVm* one : {&reference, &vm}) one->cpu.gdtr.limit = 0x1e;
  compare({0x8E, 0xE0, 0x90}, 0x18, 0);
}

}  // namespace
}  // namespace trapline::engine::test
