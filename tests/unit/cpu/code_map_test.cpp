#include "cpu/code_map.h"

#include <gtest/gtest.h>

#include <thread>

#include "bare_vm.h"

namespace trapline::cpu::test {
namespace {

constexpr u64 kFrame = 0x300;

TEST(CodeMap, LinesAreToldApart) {
  BareVm vm;
  vm.code.mark(vm.cpu, kFrame, 64, 65);  // lines 1 and 2
  EXPECT_TRUE(vm.code.has_code(kFrame));
  EXPECT_FALSE(vm.code.written(kFrame, 0, 64));
  EXPECT_FALSE(vm.code.written(kFrame, 192, 3904));
  EXPECT_EQ(vm.code.generation(kFrame), 0u);
  EXPECT_TRUE(vm.code.written(kFrame, 63, 2));
  EXPECT_EQ(vm.code.generation(kFrame), 1u);
  EXPECT_FALSE(vm.code.has_code(kFrame)) << "what is stale need not be watched";
  EXPECT_FALSE(vm.code.written(kFrame, 63, 2));
}

TEST(CodeMap, RangesRunOverFramesAndStopAtTheEndOfRam) {
  BareVm vm;
  vm.code.mark(vm.cpu, kFrame + 2, 0, 1);
  EXPECT_TRUE(vm.code.written(kFrame, 4000, 2 * kPageSize));
  EXPECT_FALSE(vm.code.written(kFrame, 0, ~u64{0}));
  EXPECT_FALSE(vm.code.written(~u64{0}, 0, 10));
  vm.code.mark(vm.cpu, ~u64{0}, 0, 10);
  vm.code.mark(vm.cpu, vm.ram.frames() - 1, 4095, 100);
  EXPECT_TRUE(vm.code.written(vm.ram.frames() - 1, 4095, 1));
}

TEST(CodeMap, SixteenGigabytesCostNothing) {
  auto ram = GuestMemory::anonymous(16 * GiB);
  ASSERT_TRUE(ram);
  CodeMap code(*ram);
  EXPECT_FALSE(code.has_code(ram->frames() - 1));
}

// A VM of several vCPUs that share RAM and code map.
struct Smp {
  GuestMemory ram = std::move(*GuestMemory::anonymous(8 * MiB));
  CodeMap code{ram};
  std::vector<std::unique_ptr<Vcpu>> cpus;
  explicit Smp(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
      cpus.push_back(std::make_unique<Vcpu>());
      Vcpu& c = *cpus.back();
      c.index = i;
      c.ram = &ram;
      c.code = &code;
      mmu_create(c);
      c.cr0 = cr0::pe | cr0::et;
      for (Segment& s : c.seg) s = BareVm::flat(0xc093);
      update_mode(c);
      code.add_vcpu(&c);
    }
  }
  ~Smp() {
    for (auto& c : cpus) mmu_destroy(*c);
  }
};

TEST(CodeMap, AParkedVcpuAnswersBeforeItRunsAgain) {
  Smp vm(2);
  Vcpu &a = *vm.cpus[0], &b = *vm.cpus[1];
  const u64 page = kFrame * kPageSize;
  ASSERT_TRUE(write(b, Seg::ds, page, u8{1}));
  ASSERT_NE(tlb_lookup(b, page, 1, b.need_write), nullptr);
  vm.code.park(b);
  vm.code.mark(a, kFrame, 0, 16);
  vm.code.unpark(b);
  EXPECT_EQ(tlb_lookup(b, page, 1, b.need_write), nullptr);
}

TEST(CodeMap, MoreRequestsThanTheRingHoldsDropEverything) {
  Smp vm(2);
  Vcpu &a = *vm.cpus[0], &b = *vm.cpus[1];
  for (u64 i = 0; i < 100; i++) ASSERT_TRUE(write(b, Seg::ds, (kFrame + i) * kPageSize, u8{1}));
  vm.code.park(b);
  for (u64 i = 0; i < 100; i++) vm.code.mark(a, kFrame + i, 0, 16);
  vm.code.unpark(b);
  for (u64 i = 0; i < 100; i++) EXPECT_EQ(tlb_lookup(b, (kFrame + i) * kPageSize, 1, b.need_write), nullptr) << i;
}

// Every vCPU decodes, and writes what others decode, at full speed. The invariant of the code map: bytes read after
// mark() are the newest, or the generation recorded before moves.
TEST(CodeMap, MarkersDoNotWaitForEachOtherForEver) {
  constexpr unsigned kVcpus = 3;
  constexpr u64 kFrames = 4;
  Smp vm(kVcpus);
  std::atomic<u64> stale{0};
  const auto body = [&](unsigned self) {
    Vcpu& c = *vm.cpus[self];
    u32 seed = self * 7919 + 1;
    for (unsigned i = 0; i < 4000; i++) {
      if (c.attention->load(std::memory_order_acquire) & attention::smp_request) vm.code.serve(c);
      seed = seed * 1664525 + 1013904223;
      const u64 frame = kFrame + (seed >> 16) % kFrames;
      if (seed >> 28 < 4) {
        // The counter of this frame, only ever written by vCPU 0 upwards.
        if (self == 0) {
          u32 v;
          ASSERT_TRUE(read(c, Seg::ds, frame * kPageSize, v));
          ASSERT_TRUE(write(c, Seg::ds, frame * kPageSize, v + 1));
        } else {
          ASSERT_TRUE(write(c, Seg::ds, frame * kPageSize + 4 + self * 4, seed));
        }
      } else if (seed >> 28 < 6) {
        const u32 generation = vm.code.generation(frame).load(std::memory_order_acquire);
        vm.code.mark(c, frame, 0, 4);
        const auto* counter = reinterpret_cast<u32*>(vm.ram.host(Gpa{frame * kPageSize}));
        const u32 decoded = __atomic_load_n(counter, __ATOMIC_ACQUIRE);
        const u32 newest = __atomic_load_n(counter, __ATOMIC_ACQUIRE);
        // A write that lands now goes through written() unless the generation has moved already.
        if (decoded != newest && vm.code.has_code(frame) &&
            vm.code.generation(frame).load(std::memory_order_acquire) == generation) {
          // The writer may be between its bytes and written(): let it get there.
          for (int w = 0; w < 100000 && vm.code.generation(frame).load(std::memory_order_acquire) == generation; w++) {
            vm.code.serve(c);
            std::this_thread::yield();
          }
          if (vm.code.generation(frame).load() == generation) stale++;
        }
      } else if (seed >> 28 == 15) {
        vm.code.park(c);
        vm.code.unpark(c);
      }
    }
    vm.code.park(c);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kVcpus; i++) threads.emplace_back(body, i);
  for (auto& t : threads) t.join();
  EXPECT_EQ(stale.load(), 0u);
}

}  // namespace
}  // namespace trapline::cpu::test
