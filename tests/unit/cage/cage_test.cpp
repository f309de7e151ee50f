// Guest code in a real cage: hand-over, mappings, kicks.
#include "cage/cage.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <ctime>

#include "cage/pool.h"

namespace trapline::cage {
namespace {

constexpr u64 kText = 0x400000, kData = 0x7f1234560000;
constexpr u32 kComponents = 7;

class CageTest : public testing::Test {
 protected:
  void SetUp() override {
    fd_ = memfd_create("ram", 0);
    ASSERT_EQ(ftruncate(fd_, 16 * 4096), 0);
    ram_ = static_cast<u8*>(mmap(nullptr, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    auto pool = Pool::make(1, fd_, 16);
    ASSERT_TRUE(pool) << pool.error();
    pool_ = std::move(*pool);
    auto cages = pool_->share(0, 1);
    ASSERT_EQ(cages.size(), 1u);
    cage_ = std::move(cages[0]);
  }
  void TearDown() override {
    cage_.reset();
    pool_.reset();
    munmap(ram_, 16 * 4096);
    close(fd_);
  }
  // At kText, as page 0 of the RAM.
  void code(std::initializer_list<int> bytes) {
    u8* at = ram_;
    for (int b : bytes) *at++ = static_cast<u8>(b);
    cage_->map(Gva{kText}, 4096, PROT_READ | PROT_EXEC, CAGE_RAM_FD, 0, true);
    registers_.rip = kText;
  }
  Stop run(u64 xrstor = Cage::kNothing) {
    cage_->resume(registers_, xrstor, kComponents, 1000);
    return await();
  }
  Stop await() {
    Stop stop;
    while (!cage_->stopped()) __builtin_ia32_pause();
    EXPECT_TRUE(cage_->take(stop, registers_));
    return stop;
  }

  int fd_ = -1;
  u8* ram_ = nullptr;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Cage> cage_;
  Registers registers_;
};

TEST_F(CageTest, SystemCallsOfTheGuestStopItWithAllRegisters) {
  code({0x0f, 0x05});
  for (unsigned i = 0; i < 16; i++) registers_.gpr[i] = u64{0x1111111111111111} * i + 5;
  registers_.rflags = 0x8d5;
  const Registers before = registers_;
  const Stop stop = run();
  EXPECT_EQ(stop.signal, SIGSYS);
  EXPECT_EQ(stop.call_address, kText + 2);
  EXPECT_EQ(registers_.rip, kText + 2);
  EXPECT_EQ(registers_.rflags, 0x8d5u | 0x202);
  for (unsigned i = 0; i < 16; i++)
    if (i != 1 && i != 11) {
      EXPECT_EQ(registers_.gpr[i], before.gpr[i]) << i;
    }
}

TEST_F(CageTest, SelectorsThatTheGuestLoadsAreTold) {
  code(
      {0xb8, 0x2b, 0,    0,    0,    0x8e, 0xc0, 0x8e, 0xe8, 0x0f, 0x05,  // mov eax, 2bh; mov es, eax; mov gs, eax; syscall
       0x8c, 0xe8, 0x65, 0x48, 0x8b, 0x14, 0x25, 8,    0,    0,    0,    0x0f,
       0x05});  // mov eax, gs; mov rdx, gs:[8]; syscall
  Stop stop = run();
  EXPECT_EQ(stop.es, 0x2b);
  EXPECT_EQ(stop.gs, 0x2b);
  EXPECT_EQ(stop.ds | stop.fs, 0);
  cage_->map(Gva{kData}, 4096, PROT_READ, CAGE_RAM_FD, 4096, true);
  ram_[4096 + 8] = 77;
  registers_.gs_base = kData;
  if (!cage_->shared().exchange.fsgsbase) cage_->set_bases(registers_.fs_base, registers_.gs_base);
  stop = run();
  EXPECT_EQ(stop.signal, SIGSYS);
  EXPECT_EQ(registers_.gpr[2], 77u) << "its base is the one that was given";
  EXPECT_EQ(stop.es | stop.gs, 0);
}

// One that polls keeps the CPU from the cage that is to run: 4 ms at a time, where both share a run queue.
TEST_F(CageTest, PollsNoLongerOnceItIsToRest) {
  constexpr u32 kForEver = ~u32{0};
  code({0x0f, 0x05});
  cage_->resume(registers_, Cage::kNothing, kComponents, kForEver);
  EXPECT_EQ(await().signal, SIGSYS);
  EXPECT_EQ(cage_->shared().exchange.cage_sleeps.load(), 0u);
  cage_->rest();
  const time_t patience = time(nullptr) + 60;
  while (cage_->shared().exchange.cage_sleeps.load() == 0 && time(nullptr) < patience) usleep(100);
  EXPECT_EQ(cage_->shared().exchange.cage_sleeps.load(), 1u);
  registers_.rip = kText;
  EXPECT_EQ(run().signal, SIGSYS) << "it can be woken";
}

TEST_F(CageTest, CpuidFaultsWhereTheHostLetsIt) {
  code({0x0f, 0xa2, 0x0f, 0x05});  // cpuid; syscall
  registers_.gpr[0] = registers_.gpr[1] = 0;
  const Stop stop = run();
  EXPECT_EQ(stop.signal, pool_->cpuid_faults() ? SIGSEGV : SIGSYS);
  if (!pool_->cpuid_faults()) return;
  EXPECT_EQ(stop.trap, 13u);
  EXPECT_EQ(registers_.rip, kText);
  EXPECT_EQ(registers_.gpr[0], 0u);
}

TEST_F(CageTest, FaultsTellAddressAndAccess) {
  code({0x48, 0x89, 0x03});  // mov [rbx], rax
  registers_.gpr[3] = kData + 8;
  Stop stop = run();
  EXPECT_EQ(stop.signal, SIGSEGV);
  EXPECT_EQ(stop.trap, 14u);
  EXPECT_EQ(stop.cr2, kData + 8);
  EXPECT_EQ(stop.error & 7, 6u);
  EXPECT_EQ(registers_.rip, kText);
}

TEST_F(CageTest, MapsWhatItIsToldAndGoesOn) {
  code({0x48, 0x89, 0x03, 0x48, 0x8b, 0x0b, 0x0f, 0x05});  // mov [rbx], rax; mov rcx, [rbx]; syscall
  registers_.gpr[0] = 0xfeedface12345678;
  registers_.gpr[3] = kData + 16;
  run();
  cage_->map(Gva{kData}, 4096, PROT_READ | PROT_WRITE, CAGE_RAM_FD, 4096, false);
  const Stop stop = run();
  EXPECT_EQ(stop.signal, SIGSYS);
  u64 there;
  std::memcpy(&there, ram_ + 4096 + 16, 8);
  EXPECT_EQ(there, 0xfeedface12345678u);
}

TEST_F(CageTest, UnmapsBeforeItAnswers) {
  code({0x8a, 0x03, 0x0f, 0x05});  // mov al, [rbx]; syscall
  registers_.gpr[3] = kData;
  cage_->map(Gva{kData}, 4096, PROT_READ, CAGE_RAM_FD, 4096, true);
  EXPECT_EQ(run().signal, SIGSYS);
  cage_->unmap(Gva{kData}, 4096);
  EXPECT_TRUE(cage_->carry_out());
  registers_.rip = kText;
  EXPECT_EQ(run().signal, SIGSEGV);
}

TEST_F(CageTest, AKickStopsAnEndlessLoop) {
  code({0xeb, 0xfe});
  cage_->resume(registers_, Cage::kNothing, kComponents, 0);
  usleep(1000);
  EXPECT_FALSE(cage_->stopped());
  cage_->kick();
  const Stop stop = await();
  EXPECT_EQ(stop.signal, kKick);
  if (!stop.kept) {
    EXPECT_EQ(registers_.rip, kText);
  }
}

TEST_F(CageTest, ManyKicksLoseNothing) {
  code({0x48, 0xff, 0xc0, 0xeb, 0xfb});  // 1: inc rax; jmp 1b
  u64 last = 0;
  for (int i = 0; i < 500; i++) {
    cage_->resume(registers_, Cage::kNothing, kComponents, 100);
    cage_->kick();
    if (i % 3 == 0) cage_->kick();
    const Stop stop = await();
    ASSERT_EQ(stop.signal, kKick);
    ASSERT_TRUE(registers_.rip == kText || registers_.rip == kText + 3) << std::hex << registers_.rip;
    ASSERT_GE(registers_.gpr[0], last);
    last = registers_.gpr[0];
  }
}

TEST_F(CageTest, KicksAmongOrdersLoseNothing) {
  code({0x48, 0xff, 0xc0, 0xeb, 0xfb});
  for (int i = 0; i < 500; i++) {
    for (u64 p = 0; p < 8; p++) cage_->map(Gva{kData + p * 4096}, 4096, PROT_READ, CAGE_RAM_FD, p * 4096, false);
    cage_->resume(registers_, Cage::kNothing, kComponents, 100);
    cage_->kick();
    ASSERT_EQ(await().signal, kKick);
    ASSERT_EQ(cage_->shared().exchange.failed, 0u);
  }
}

TEST_F(CageTest, VectorsComeFromTheImageAndGoIntoTheFrame) {
  code({0x0f, 0x57, 0xc9, 0x0f, 0x05});  // xorps xmm1, xmm1; syscall
  u8* image = cage_->shared().vectors;
  std::memset(image, 0, 4096);
  image[0] = 0x7f, image[1] = 3;                           // FCW
  image[24] = 0x80, image[25] = 0x1f;                      // MXCSR
  for (int i = 0; i < 32; i++) image[160 + i] = 0x40 + i;  // XMM0, XMM1
  image[512] = 3;                                          // x87 and SSE
  const Stop stop = run(Cage::kVectors);
  ASSERT_EQ(stop.signal, SIGSYS);
  ASSERT_NE(stop.fpstate, Cage::kNothing);
  const u8* frame = cage_->shared().stack + stop.fpstate;
  for (int i = 0; i < 16; i++) EXPECT_EQ(frame[160 + i], 0x40 + i);
  for (int i = 16; i < 32; i++) EXPECT_EQ(frame[160 + i], 0);
}

}  // namespace
}  // namespace trapline::cage
