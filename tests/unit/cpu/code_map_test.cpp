#include "cpu/code_map.h"

#include <gtest/gtest.h>

#include <chrono>
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

TEST(CodeMap, TellsWhichFramesWereOverwritten) {
  BareVm vm;
  vm.code.watch();
  const u64 before = vm.code.epoch();
  for (const u64 frame : {kFrame, kFrame + 7}) {
    vm.code.mark(vm.cpu, frame, 0, 16);
    EXPECT_TRUE(vm.code.written(frame, 3, 1));
  }
  std::vector<u64> frames;
  EXPECT_TRUE(vm.code.overwritten(before, vm.code.epoch(), frames));
  EXPECT_EQ(frames, (std::vector<u64>{kFrame, kFrame + 7}));
  frames.clear();
  EXPECT_TRUE(vm.code.overwritten(vm.code.epoch(), vm.code.epoch(), frames));
  EXPECT_TRUE(frames.empty());
  for (unsigned i = 0; i < 2000; i++) {
    vm.code.mark(vm.cpu, kFrame, 0, 16);
    vm.code.written(kFrame, 0, 1);
  }
  EXPECT_FALSE(vm.code.overwritten(before, vm.code.epoch(), frames)) << "too many to be told apart";
}

TEST(CodeMap, AFrameThatIsGivenUpIsNotWatchedAndSaysSo) {
  BareVm vm;
  vm.code.watch();
  const u64 before = vm.code.epoch();
  vm.code.give_up(kFrame);  // without code: nothing has happened
  EXPECT_EQ(vm.code.epoch(), before);
  EXPECT_EQ(vm.code.given_up(kFrame), 0u);
  const u32 decoded = vm.code.mark_and_number(vm.cpu, kFrame, 128, 16);
  vm.code.give_up(kFrame);
  EXPECT_FALSE(vm.code.has_code(kFrame));
  EXPECT_GT(vm.code.given_up(kFrame), decoded);
  std::vector<u64> frames;
  EXPECT_TRUE(vm.code.overwritten(before, vm.code.epoch(), frames));
  EXPECT_EQ(frames, std::vector<u64>{kFrame});
  // What is decoded from then on is kept again.
  EXPECT_LE(vm.code.given_up(kFrame), vm.code.mark_and_number(vm.cpu, kFrame, 128, 16));
  vm.code.give_up(vm.ram.frames());
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
  ASSERT_NE(tlb_lookup(b, Gva{page}, 1, b.need_write), nullptr);
  vm.code.park(b);
  vm.code.mark(a, kFrame, 0, 16);
  vm.code.unpark(b);
  EXPECT_EQ(tlb_lookup(b, Gva{page}, 1, b.need_write), nullptr);
}

TEST(CodeMap, MoreRequestsThanTheRingHoldsDropEverything) {
  Smp vm(2);
  Vcpu &a = *vm.cpus[0], &b = *vm.cpus[1];
  for (u64 i = 0; i < 100; i++) ASSERT_TRUE(write(b, Seg::ds, (kFrame + i) * kPageSize, u8{1}));
  vm.code.park(b);
  for (u64 i = 0; i < 100; i++) vm.code.mark(a, kFrame + i, 0, 16);
  vm.code.unpark(b);
  for (u64 i = 0; i < 100; i++) EXPECT_EQ(tlb_lookup(b, Gva{(kFrame + i) * kPageSize}, 1, b.need_write), nullptr) << i;
}

TEST(CodeMap, MarkReturnsOnlyAfterEveryRunningVcpuHasAnswered) {
  Smp vm(3);
  Vcpu &a = *vm.cpus[0], &b = *vm.cpus[1];
  vm.code.park(*vm.cpus[2]);
  const u64 page = kFrame * kPageSize;
  ASSERT_TRUE(write(b, Seg::ds, page, u8{1}));
  std::atomic<bool> returned{false};
  std::thread marker{[&] {
    vm.code.mark(a, kFrame, 0, 16);
    returned = true;
  }};
  while (!(b.attention->load() & attention::smp_request)) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(returned);
  EXPECT_NE(tlb_lookup(b, Gva{page}, 1, b.need_write), nullptr) << "only its own thread takes it away";
  vm.code.serve(b);
  marker.join();
  EXPECT_EQ(tlb_lookup(b, Gva{page}, 1, b.need_write), nullptr);
  EXPECT_FALSE(b.attention->load() & attention::smp_request);
}

// Two vCPUs count in frames that a third one decodes, all at full speed. What the code map promises: as long as the
// generation recorded before mark() stands, the bytes read after it are those in memory.
struct Race {
  static constexpr unsigned kRounds = 20000;
  static constexpr u64 kFrames = 4;
  Smp vm{3};
  std::atomic<unsigned> writers{2};
  unsigned decoded = 0, moved = 0, stale = 0;

  void poll(Vcpu& c) {
    if (c.attention->load(std::memory_order_acquire) & attention::smp_request) vm.code.serve(c);
  }
  u32* counter(u64 frame, unsigned writer) {
    return reinterpret_cast<u32*>(vm.ram.host(Gpa{frame * kPageSize + writer * 4}));
  }
  u32 generation(u64 frame) { return vm.code.generation(frame).load(std::memory_order_acquire); }

  void write_counters(unsigned self) {
    Vcpu& c = *vm.cpus[self];
    for (u32 i = 1; i <= kRounds; i++) {
      poll(c);
      EXPECT_TRUE(write(c, Seg::ds, (kFrame + i % kFrames) * kPageSize + self * 4, i));
      if (i % 64 == 0) std::this_thread::yield();
      if (i % 100 == 0) vm.code.mark(c, kFrame + kFrames, 0, 4);  // markers meet markers
      if (i % 500 == 0) vm.code.park(c), std::this_thread::yield(), vm.code.unpark(c);
    }
    vm.code.park(c);
    writers--;
  }

  void decode_frames(unsigned self) {
    Vcpu& c = *vm.cpus[self];
    for (u64 frame = kFrame; writers != 0; frame = frame + 1 < kFrame + kFrames ? frame + 1 : kFrame) {
      poll(c);
      const u32 recorded = generation(frame);
      vm.code.mark(c, frame, 0, 16);
      const u32 first = __atomic_load_n(counter(frame, 0), __ATOMIC_ACQUIRE);
      decoded++;
      for (int i = 0; i < 3; i++) std::this_thread::yield();
      if (__atomic_load_n(counter(frame, 0), __ATOMIC_ACQUIRE) == first) continue;
      // The writer may be between its bytes and written(): let it get there.
      for (int i = 0; i < 100000 && generation(frame) == recorded; i++) {
        poll(c);
        std::this_thread::yield();
      }
      generation(frame) == recorded ? stale++ : moved++;
    }
    vm.code.park(c);
  }
};

TEST(CodeMap, DecodedBytesAreCurrentWhileTheGenerationStands) {
  Race race;
  std::thread a{[&] { race.write_counters(0); }}, b{[&] { race.write_counters(1); }}, c{[&] { race.decode_frames(2); }};
  a.join(), b.join(), c.join();
  EXPECT_GT(race.decoded, 0u);
  EXPECT_EQ(race.stale, 0u) << "of " << race.decoded << ", " << race.moved << " noticed";
}

}  // namespace
}  // namespace trapline::cpu::test
