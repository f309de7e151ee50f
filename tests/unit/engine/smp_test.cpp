// Several vCPUs at full speed on one RAM and code map, each with its engine on a thread of its own: what x86 forbids
// to be seen is not seen, and nothing that is locked is lost. What a Linux guest sees of all this: tests/guest/litmus/.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "engine/registry.h"
#include "interpret_vm.h"
#include "support/engines.h"

namespace trapline::engine::test {
namespace {

// 32-bit code without paging: linear addresses are places in RAM.
class SmpVm {
 public:
  static constexpr u64 kCode = 0x10000, kStacks = 0x80000;
  static constexpr int kData = 0x200000;  // as programs name it

  SmpVm(const EngineKind& kind, unsigned vcpus) {
    for (unsigned i = 0; i < vcpus; i++) units_.push_back(std::make_unique<Unit>(*this, i, kind));
  }
  // Vcpu i begins with the i-th program; returns when all have halted.
  void run(const std::vector<std::vector<int>>& programs) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < units_.size(); i++) {
      const u64 place = kCode + i * kPageSize;
      for (u64 at = place; const int b : programs[i % programs.size()]) byte(at++) = static_cast<u8>(b);
      units_[i]->cpu.rip = place;
    }
    for (auto& u : units_) threads.emplace_back([this, &unit = *u] { run_until_halt(unit); });
    for (std::thread& t : threads) t.join();
  }
  u8& byte(u64 gpa) { return reinterpret_cast<u8&>(*ram_.host(Gpa{gpa})); }
  u32 word(u64 gpa) const {  // at any alignment
    u32 value;
    std::memcpy(&value, ram_.host(Gpa{gpa}), sizeof value);
    return value;
  }
  Vcpu& cpu(unsigned i) { return units_[i]->cpu; }

 private:
  struct Unit {
    CodeArena arena;
    Vcpu cpu;
    std::unique_ptr<Engine> engine;

    Unit(SmpVm& vm, unsigned index, const EngineKind& kind) : arena{kind.arena_bytes} {
      cpu.index = index;
      cpu.ram = &vm.ram_;
      cpu.ram_base = vm.ram_.base();
      cpu.code = &vm.map_;
      cpu.cpuid = &vm.cpuid_;
      cpu.bus = &vm.bus_;
      cpu.clock = &vm.clock_;
      mmu_create(cpu);
      vm.map_.add_vcpu(&cpu);
      reset(cpu, index != 0);
      begin_flat32();
      engine = kind.make(cpu, arena, {}, {});
    }
    ~Unit() {
      engine.reset();
      mmu_destroy(cpu);
    }
    static Segment flat(u16 attr) {
      Segment s;
      s.selector = 8;
      s.attr = attr;
      s.limit = 0xffffffff;
      s.usable = true;
      return s;
    }
    void begin_flat32() {
      cpu.activity = Activity::running;
      cpu.cr0 |= cr0::pe;
      for (const Seg s : {Seg::es, Seg::cs, Seg::ss, Seg::ds, Seg::fs, Seg::gs})
        cpu.segment(s) = flat(s == Seg::cs ? 0xc09b : 0xc093);
      cpu.gpr[isa::rsp] = kStacks + (cpu.index + 1) * kPageSize;
      update_mode(cpu);
      tlb_flush_all(cpu);
    }
  };
  void run_until_halt(Unit& unit) {
    while (unit.engine->run(unit.cpu, u64{1} << 40) != Exit::halted) {
    }
    map_.park(unit.cpu);
  }

  GuestMemory ram_ = std::move(*GuestMemory::anonymous(16 * MiB));
  CodeMap map_{ram_};
  Cpuid cpuid_ = std::move(*Cpuid::make({}));
  FakeBus bus_;
  Clock clock_;
  std::vector<std::unique_ptr<Unit>> units_;
};

class Smp : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam()); }
  const EngineKind& kind() const { return *find_engine(GetParam()); }
};

constexpr int kRounds = 0x8000;
#define LE32(x) (x) & 0xff, (x) >> 8 & 0xff, (x) >> 16 & 0xff, (x) >> 24 & 0xff

// `lock inc dword [place]` by three vCPUs.
u32 counted(SmpVm& vm, int place) {
  vm.run({{0xb9, LE32(kRounds),            // mov ecx, kRounds
           0xf0, 0xff, 0x05, LE32(place),  // lock inc dword [place]
           0x49, 0x75, 0xf6,               // dec ecx; jnz
           0xf4}});                        // hlt
  return vm.word(static_cast<u64>(place));
}

TEST_P(Smp, NoLockedIncrementIsLost) {
  SmpVm vm{kind(), 3};
  EXPECT_EQ(counted(vm, SmpVm::kData), 3u * kRounds);
}

TEST_P(Smp, NorOneAcrossPages) {
  SmpVm vm{kind(), 3};
  EXPECT_EQ(counted(vm, SmpVm::kData + 0xffe), 3u * kRounds);
}

// Message passing: who sees the flag sees the data that was stored before it.
TEST_P(Smp, StoresAreSeenInOrder) {
  constexpr int data = SmpVm::kData, flag = SmpVm::kData + 0x1040;
  SmpVm vm{kind(), 2};
  vm.run({{0x31, 0xc0,                       // xor eax, eax
           0x40,                             // inc eax
           0xa3, LE32(data),                 // mov [data], eax
           0xa3, LE32(flag),                 // mov [flag], eax
           0x3d, LE32(kRounds), 0x75, 0xee,  // cmp eax, kRounds; jne
           0xf4},
          {0x31, 0xff,                       // xor edi, edi
           0xa1, LE32(flag),                 // mov eax, [flag]
           0x8b, 0x1d, LE32(data),           // mov ebx, [data]
           0x39, 0xc3, 0x73, 0x01, 0x47,     // cmp ebx, eax; jae +1; inc edi
           0x3d, LE32(kRounds), 0x75, 0xe9,  // cmp eax, kRounds; jne
           0xf4}});
  EXPECT_EQ(vm.cpu(1).gpr[isa::rdi], 0u) << "times that a store was overtaken by an older one";
  EXPECT_EQ(vm.cpu(1).gpr[isa::rbx], u64{kRounds});
}

// Store buffering with a fence: one of the two sees the other's store.
TEST_P(Smp, AFenceLetsNoLoadPassAStore) {
  constexpr int x = SmpVm::kData, y = x + 0x100000, seen_y = x + 0x200000, seen_x = x + 0x300000;
  const auto side = [](int mine, int other, int seen) {
    return std::vector<int>{0x31, 0xc9,                                // xor ecx, ecx
                            0xc7, 0x04, 0x8d, LE32(mine),    LE32(1),  // mov dword [mine+ecx*4], 1
                            0x0f, 0xae, 0xf0,                          // mfence
                            0x8b, 0x04, 0x8d, LE32(other),             // mov eax, [other+ecx*4]
                            0x89, 0x04, 0x8d, LE32(seen),              // mov [seen+ecx*4], eax
                            0x41, 0x81, 0xf9, LE32(kRounds),           // inc ecx; cmp ecx, kRounds
                            0x75, 0xdb,                                // jne
                            0xf4};
  };
  SmpVm vm{kind(), 2};
  vm.run({side(x, y, seen_y), side(y, x, seen_x)});
  for (int i = 0; i < kRounds; i++)
    ASSERT_NE(vm.word(static_cast<u64>(seen_x + i * 4)) + vm.word(static_cast<u64>(seen_y + i * 4)), 0u)
        << "in round " << i;
}

// One vCPU changes the immediate of an instruction that the other one calls, then says so: a caller who has heard of
// it runs the new code. (A jump in between is all that x86 asks of the caller.)
TEST_P(Smp, ChangedCodeIsRunByThoseWhoKnowOfIt) {
  constexpr int function = SmpVm::kData + 0x1003, flag = SmpVm::kData + 0x3000;
  constexpr int changes = 3000;
  SmpVm vm{kind(), 2};
  for (u64 at = function; const int b : {0xb8, 0, 0, 0, 0, 0xc3})  // mov eax, imm32 (aligned); ret
    vm.byte(at++) = static_cast<u8>(b);
  vm.run({{0x31, 0xc0,                                    // xor eax, eax
           0x40,                                          // inc eax
           0xa3, LE32(function + 1),                      // mov [function+1], eax
           0xa3, LE32(flag),                              // mov [flag], eax
           0xb9, LE32(50), 0xf3, 0x90, 0x49, 0x75, 0xfb,  // mov ecx, 50; pause; dec ecx; jnz
           0x3d, LE32(changes), 0x75, 0xe4,               // cmp eax, changes; jne
           0xf4},
          {0x31, 0xff,                                       // xor edi, edi
           0x8b, 0x1d,           LE32(flag),                 // mov ebx, [flag]
           0xba, LE32(function), 0xff,          0xd2,        // mov edx, function; call edx
           0x39, 0xd8,           0x73,          0x01, 0x47,  // cmp eax, ebx; jae +1; inc edi
           0x81, 0xfb,           LE32(changes), 0x75, 0xe6,  // cmp ebx, changes; jne
           0xf4}});
  EXPECT_EQ(vm.cpu(1).gpr[isa::rdi], 0u) << "calls that ran old code";
  EXPECT_EQ(vm.cpu(1).gpr[isa::rax], u64{changes});
}

// A loop of PAUSEs: a wait for another vCPU, or, where there is none, for time.
TEST_P(Smp, WhoSpinsStepsAsideForOthersOnly) {
  for (const unsigned vcpus : {1u, 2u}) {
    SmpVm vm{kind(), vcpus};
    vm.run({{0xb9, LE32(kRounds), 0xf3, 0x90, 0x49, 0x75, 0xfb, 0xf4}});  // mov ecx, kRounds; pause; dec ecx; jnz
    EXPECT_EQ(vm.cpu(0).count.yields > 0, vcpus > 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Smp, testing::ValuesIn(trapline::test::kEngines),
                         [](const auto& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::engine::test
