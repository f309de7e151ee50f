// Guest user code that tries to get out of its cage, each test by one way. What it has is what a hostile program has:
// any registers, any instructions, and the stub's pages in its own address space.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "cage/cage.h"
#include "cage/pool.h"

namespace trapline::cage {
namespace {

constexpr u64 kText = 0x400000, kTarget = 0x7000000000;
constexpr u64 kSecret = 0x5ec2e75ec2e7;  // in RAM page 1, which is never mapped

enum Gpr : u8 { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10 };

// With the stub in both of its places.
class CageAttack : public testing::TestWithParam<u64> {
 protected:
  void SetUp() override {
    fd_ = memfd_create("ram", 0);
    ASSERT_EQ(ftruncate(fd_, 16 * 4096), 0);
    ram_ = static_cast<u8*>(mmap(nullptr, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    std::memcpy(ram_ + 4096, &kSecret, 8);
    begin();
  }
  void TearDown() override {
    cage_.reset();
    pool_.reset();
    munmap(ram_, 16 * 4096);
    close(fd_);
  }
  // Without one of the defences the same attack must succeed: it is no test else.
  void begin(const Defences& defences = {}) {
    cage_.reset();
    auto pool = Pool::make(1, fd_, 1, 0, defences, GetParam() == kOtherStub);
    ASSERT_TRUE(pool) << pool.error();
    pool_ = std::move(*pool);
    auto cages = pool_->share(0, 1);
    ASSERT_EQ(cages.size(), 1u);
    cage_ = std::move(cages[0]);
    ASSERT_EQ(cage_->stub(), stub());
    registers_ = {};
    cage_->map(Gva{kText}, 4096, PROT_READ | PROT_EXEC, CAGE_RAM_FD, 0, true);
    cage_->map(Gva{kTarget}, 4096, PROT_READ | PROT_WRITE, CAGE_RAM_FD, 2 * 4096, true);
    registers_.rip = kText;
  }
  void code(std::initializer_list<int> bytes) {
    u8* at = ram_;
    for (const int b : bytes) *at++ = static_cast<u8>(b);
  }
  void go() { cage_->resume(registers_, Cage::kNothing, 7, 1000); }
  // False: it has ended.
  bool run() {
    go();
    return await();
  }
  bool await() {
    for (u64 i = 0; !cage_->stopped(); i++)
      if (i % 4096 == 0 && cage_->has_ended()) return false;
    return cage_->take(stop_, registers_);
  }
  static u64 stub() { return GetParam(); }
  u64 in_stub(const char* at) const { return stub() + static_cast<u64>(at - cage_stub_begin); }
  // Orders still work, and are those of the core.
  bool obeys() {
    cage_->map(Gva{0x9000000000}, 4096, PROT_READ, CAGE_RAM_FD, 3 * 4096, false);
    return cage_->carry_out();
  }

  int fd_ = -1;
  u8* ram_ = nullptr;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Cage> cage_;
  Registers registers_;
  Stop stop_;
};

TEST_P(CageAttack, NoSystemCallIsMadeByItsNumber) {
  code({0x0f, 0x05});
  std::vector<u64> numbers;
  for (u64 n = 0; n < 512; n++) numbers.push_back(n);
  for (const u64 x32 : {0u, 1u, 9u, 11u, 59u, 101u, 231u, 512u, 520u, 547u}) numbers.push_back(0x40000000 | x32);
  for (const u64 odd : {~u64{0}, u64{1} << 63, u64{0xffffffff00000000} | 39}) numbers.push_back(odd);
  for (const u64 number : numbers) {
    registers_.gpr[kRax] = number;
    registers_.rip = kText;
    ASSERT_TRUE(run()) << number;
    // Linux lets two through every filter, those by which its probes return. They do nothing for anyone else.
    if (number == 335 && stop_.signal == SIGILL) {
      EXPECT_EQ(stop_.code, SI_KERNEL);
      continue;
    }
    if (number == 336 && stop_.signal == SIGSEGV) {  // of the zeros behind the SYSCALL: it went on
      EXPECT_EQ(registers_.gpr[kRax], u64{0} - ENXIO);
      continue;
    }
    ASSERT_EQ(stop_.signal, SIGSYS) << number;
    ASSERT_EQ(static_cast<u32>(registers_.gpr[kRax]), static_cast<u32>(number));
  }
  EXPECT_TRUE(obeys());
}

TEST_P(CageAttack, WithoutTheFilterSystemCallsAreMade) {
  begin({.calls = false});
  code({0x0f, 0x05, 0x0f, 0x0b});  // syscall; ud2
  registers_.gpr[kRax] = SYS_getppid;
  ASSERT_TRUE(run());
  EXPECT_EQ(stop_.signal, SIGILL);
  EXPECT_EQ(registers_.gpr[kRax], static_cast<u64>(getpid()));
}

TEST_P(CageAttack, NorByTheOtherEntries) {
  code({0xcd, 0x80});  // int 0x80: exit_group, of 32-bit programs
  registers_.gpr[kRax] = 252;
  ASSERT_TRUE(run());
  EXPECT_TRUE(stop_.signal == SIGSYS || stop_.signal == SIGSEGV) << stop_.signal;  // the host has it, or not
  // The vsyscall page, by a call to it.
  code({0xff, 0xd0});  // call rax
  registers_ = {};
  registers_.rip = kText;
  registers_.gpr[kRax] = 0xffffffffff600000;
  registers_.gpr[kRsp] = kTarget + 0x800;
  ASSERT_TRUE(run());
  EXPECT_TRUE(stop_.signal == SIGSYS || stop_.signal == SIGSEGV) << stop_.signal;
  EXPECT_TRUE(obeys());
}

TEST_P(CageAttack, TheOrderInstructionNeedsTheNonce) {
  code({0xff, 0xe1});  // jmp rcx
  for (const u64 guess : {u64{0}, ~u64{0} << 32, u64{1} << 32}) {
    begin();
    registers_.gpr[kRcx] = in_stub(cage_site_order) - 2;
    registers_.gpr[kRax] = SYS_mmap;
    registers_.gpr[kRdi] = kTarget;
    registers_.gpr[kRsi] = 4096;
    registers_.gpr[kRdx] = PROT_READ | PROT_WRITE;
    registers_.gpr[kR10] = MAP_SHARED | MAP_FIXED | guess;
    registers_.gpr[kR8] = CAGE_RAM_FD | guess;
    registers_.gpr[kR9] = 4096;
    EXPECT_FALSE(run()) << std::hex << guess;
  }
}

TEST_P(CageAttack, WithoutItTheProgramMapsWhatItLikes) {
  begin({.nonce = false});
  // mov rax, [rbx]; test rax, rax; jz +2; syscall; mov eax, r15d; jmp rcx
  code({0x48, 0x8b, 0x03, 0x48, 0x85, 0xc0, 0x74, 0x02, 0x0f, 0x05, 0x44, 0x89, 0xf8, 0xff, 0xe1});
  registers_.gpr[kRcx] = in_stub(cage_site_order) - 2;
  registers_.gpr[15] = SYS_mmap;
  registers_.gpr[kRbx] = registers_.gpr[kRdi] = kTarget;
  registers_.gpr[kRsi] = 4096;
  registers_.gpr[kRdx] = PROT_READ | PROT_WRITE;
  registers_.gpr[kR10] = MAP_SHARED | MAP_FIXED;
  registers_.gpr[kR8] = CAGE_RAM_FD;
  registers_.gpr[kR9] = 4096;
  registers_.gpr[kRbp] = 1;  // the last order: the stub goes on with the program
  ASSERT_TRUE(run());
  EXPECT_EQ(stop_.signal, SIGSYS);
  EXPECT_EQ(registers_.gpr[kRax], kSecret);
}

TEST_P(CageAttack, OtherCallsOfTheStubGoWhereTheyMustOnly) {
  code({0xff, 0xe1});
  // A read of the order pipe into memory of the program's, and one of another descriptor.
  for (const auto& [fd, to] :
       {std::pair{u64{CAGE_ORDER_FD}, kTarget}, std::pair{u64{CAGE_RAM_FD}, stub() + CAGE_ORDERS}}) {
    begin();
    registers_.gpr[kRcx] = in_stub(cage_site_read) - 2;
    registers_.gpr[kRax] = SYS_read;
    registers_.gpr[kRdi] = fd;
    registers_.gpr[kRsi] = to;
    registers_.gpr[kRdx] = 4096;
    EXPECT_FALSE(run());
  }
  // Waking somebody else's futex.
  begin();
  registers_.gpr[kRcx] = in_stub(cage_site_wake) - 2;
  registers_.gpr[kRax] = SYS_futex;
  registers_.gpr[kRdi] = kTarget;
  registers_.gpr[kRsi] = 1;
  EXPECT_FALSE(run());
}

TEST_P(CageAttack, WithoutThatTheProgramReadsTheNonce) {
  begin({.arguments = false});
  code({0xf0, 0xff, 0x03, 0xff, 0xe1});  // lock inc dword [rbx]; jmp rcx
  registers_.gpr[kRbx] = stub() + CAGE_EXCHANGE + X_CALLS;
  registers_.gpr[kRcx] = in_stub(cage_site_read) - 2;
  registers_.gpr[kRax] = SYS_read;
  registers_.gpr[kRdi] = CAGE_ORDER_FD;
  registers_.gpr[kRsi] = kTarget;
  registers_.gpr[kRdx] = 4096;
  ASSERT_TRUE(run());  // it says so
  cage_->map(Gva{0x9000000000}, 4096, PROT_READ, CAGE_RAM_FD, 3 * 4096, false);
  go();
  const auto* stolen = reinterpret_cast<const volatile Orders*>(ram_ + 2 * 4096);
  for (int i = 0; i < 1000 && stolen->count == 0; i++) usleep(1000);
  EXPECT_EQ(stolen->count, 1u);
  EXPECT_NE(stolen->order[0].argument[3] >> 32, 0u);
}

TEST_P(CageAttack, SteppingThroughTheStubEndsIt) {
  code({0x9d, 0xff, 0xe1});  // popfq; jmp rcx
  const u64 flags = 0x302;   // TF
  std::memcpy(ram_ + 2 * 4096 + 0x800, &flags, 8);
  registers_.gpr[kRsp] = kTarget + 0x800;
  registers_.gpr[kRcx] = in_stub(cage_site_read) - 2;
  // The trap behind JMP is taken in the stub.
  if (run()) {
    ASSERT_EQ(stop_.signal, SIGTRAP);  // the one behind POPFQ's next instruction, if the host tells it here
    EXPECT_TRUE(registers_.rip < stub() || registers_.rip >= stub() + kStubBytes);
  }
}

TEST_P(CageAttack, TheStubsCodeCannotBeWritten) {
  code({0x88, 0x01});  // mov [rcx], al
  registers_.gpr[kRcx] = stub() + 0x100;
  ASSERT_TRUE(run());
  EXPECT_EQ(stop_.signal, SIGSEGV);
  EXPECT_EQ(stop_.cr2, stub() + 0x100);
}

TEST_P(CageAttack, SayingThatItHasStoppedDoesNotMakeItSo) {
  code({0xf0, 0xff, 0x01, 0xeb, 0xfe});  // lock inc dword [rcx]; jmp .
  registers_.gpr[kRcx] = stub() + CAGE_EXCHANGE + X_CALLS;
  go();
  ASSERT_TRUE(await());
  // It runs on; what is stale must be gone, or the cage.
  cage_->unmap(Gva{kTarget}, 4096);
  EXPECT_FALSE(cage_->carry_out());
  EXPECT_TRUE(cage_->dead());
}

TEST_P(CageAttack, ForgedOrdersAreNotCarriedOut) {
  // Writes an order for page 1 of the RAM into the page of orders, then makes a system call.
  auto* orders = reinterpret_cast<Orders*>(ram_ + 2 * 4096);
  *orders = {};
  orders->count = 1;
  orders->order[0] = {SYS_mmap, {kTarget, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, CAGE_RAM_FD, 4096}, 0};
  code({0xf3, 0xa4, 0x0f, 0x05});  // rep movsb; syscall
  registers_.gpr[kRsi] = kTarget;
  registers_.gpr[kRdi] = stub() + CAGE_ORDERS;
  registers_.gpr[kRcx] = 4096;
  ASSERT_TRUE(run());
  ASSERT_EQ(stop_.signal, SIGSYS);
  EXPECT_FALSE(obeys());
  EXPECT_TRUE(cage_->dead());
}

TEST_P(CageAttack, AForgedTokenProvesNothing) {
  auto* orders = reinterpret_cast<Orders*>(ram_ + 2 * 4096);
  *orders = {};
  orders->count = 1, orders->done = 1, orders->after = 1;
  orders->token = 0x1234567;
  code({0xf3, 0xa4, 0x0f, 0x05});
  registers_.gpr[kRsi] = kTarget;
  registers_.gpr[kRdi] = stub() + CAGE_ORDERS;
  registers_.gpr[kRcx] = 4096;
  ASSERT_TRUE(run());
  EXPECT_FALSE(obeys());
}

TEST_P(CageAttack, WithoutProofItWouldBeBelieved) {
  begin({.tokens = false});
  auto* orders = reinterpret_cast<Orders*>(ram_ + 2 * 4096);
  *orders = {};
  orders->count = 1, orders->done = 1, orders->after = 1;
  code({0xf3, 0xa4, 0x0f, 0x05});
  registers_.gpr[kRsi] = kTarget;
  registers_.gpr[kRdi] = stub() + CAGE_ORDERS;
  registers_.gpr[kRcx] = 4096;
  ASSERT_TRUE(run());
  EXPECT_TRUE(obeys());
}

TEST_P(CageAttack, NothingOfTheOrdersIsLeftForTheProgram) {
  // Reads the page of orders and the signal stack: no word of it may be the nonce or look like an order.
  code({0x48, 0x8b, 0x06, 0x48, 0x89, 0x07, 0x0f, 0x05});  // mov rax, [rsi]; mov [rdi], rax; syscall
  for (u64 at = 0; at < CAGE_BYTES; at += at < CAGE_EXCHANGE ? 512 : 56) {
    if (at >= CAGE_STACK && at < CAGE_STACK + 0xe800) continue;  // hardly touched
    registers_.gpr[kRsi] = stub() + at;
    registers_.gpr[kRdi] = kTarget;
    registers_.rip = kText;
    cage_->map(Gva{0x9000000000}, 4096, PROT_READ, CAGE_RAM_FD, 3 * 4096, false);
    ASSERT_TRUE(run());
    ASSERT_EQ(stop_.signal, SIGSYS) << std::hex << at;
    if (at >= CAGE_ORDERS + B_ORDER && at < CAGE_STACK) {
      ASSERT_EQ(registers_.gpr[kRax], 0u) << std::hex << at;
    } else {
      // The upper half of `flags` beside MAP_SHARED | MAP_FIXED.
      ASSERT_FALSE(static_cast<u32>(registers_.gpr[kRax]) == (MAP_SHARED | MAP_FIXED) && registers_.gpr[kRax] >> 32)
          << std::hex << at;
    }
  }
}

TEST_P(CageAttack, SignalFramesCannotBeForged) {
  code({0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05});  // rt_sigreturn
  registers_.gpr[kRsp] = kTarget + 0x100;
  ASSERT_TRUE(run());
  EXPECT_EQ(stop_.signal, SIGSYS);
  // And from the stub's own instructions.
  begin();
  code({0xff, 0xe1});
  registers_.gpr[kRcx] = in_stub(cage_site_order) - 2;
  registers_.gpr[kRax] = SYS_rt_sigreturn;
  EXPECT_FALSE(run());
}

TEST_P(CageAttack, LoopingInTheStubDoesNotHoldTheCore) {
  code({0xff, 0xe1});
  registers_.gpr[kRcx] = in_stub(cage_site_read) - 2;  // as the stub itself would: waits for orders that do not come
  registers_.gpr[kRax] = SYS_read;
  registers_.gpr[kRdi] = CAGE_ORDER_FD;
  registers_.gpr[kRsi] = stub() + CAGE_ORDERS;
  registers_.gpr[kRdx] = 4096;
  go();
  usleep(2000);
  EXPECT_FALSE(cage_->stopped());
  cage_->kill();
  EXPECT_TRUE(cage_->dead());
}

TEST_P(CageAttack, ACageDiesWithWhoMadeIt) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t maker = fork();
  if (maker == 0) {
    auto pool = Pool::make(1, fd_, 1);
    const pid_t cage = pool ? (*pool)->processes()[0] : 0;
    (*pool)->share(0, 1);
    if (write(ends[1], &cage, sizeof cage) != sizeof cage) _exit(1);
    kill(getpid(), SIGKILL);
  }
  pid_t cage = 0;
  ASSERT_EQ(read(ends[0], &cage, sizeof cage), static_cast<ssize_t>(sizeof cage));
  ASSERT_GT(cage, 0);
  for (int i = 0; i < 2000 && kill(cage, 0) == 0; i++) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/stat", cage);
    if (FILE* f = fopen(path, "r")) {
      char state = 0;
      if (std::fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && (state == 'Z' || state == 'X')) {
        fclose(f);
        break;
      }
      fclose(f);
    }
    usleep(1000);
    ASSERT_LT(i, 1999) << "the cage lives on";
  }
  close(ends[0]), close(ends[1]);
}

INSTANTIATE_TEST_SUITE_P(Stubs, CageAttack, testing::Values(kStub, kOtherStub),
                         [](const testing::TestParamInfo<u64>& stub) {
                           return std::string{stub.param == kStub ? "usual" : "other"};
                         });

}  // namespace
}  // namespace trapline::cage
