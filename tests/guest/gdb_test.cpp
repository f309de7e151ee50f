// The GDB stub on freestanding guests, by a protocol client of our own and by GDB itself where it is installed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "support/process.h"
#include "support/rsp_client.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

std::string guest(const char* name) { return fmt::format("{}/{}.elf", BARE_GUESTS, name); }

// Addresses of a guest's labels.
std::map<std::string, unsigned long> labels(const char* name) {
  std::map<std::string, unsigned long> out;
  const Finished nm = run({"nm", guest(name)});
  std::istringstream lines{nm.output};
  std::string label;
  unsigned long address;
  for (char type; lines >> std::hex >> address >> type >> label;) out[label] = address;
  return out;
}

std::vector<std::string> command(const char* name, std::uint16_t port, std::vector<std::string> more = {"--gdb-wait"}) {
  std::vector<std::string> argv{TRAPLINE_EXECUTABLE, "run", "--kernel", guest(name),         "--memory", "64M",
                                "--timeout",         "60",  "--gdb",    std::to_string(port)};
  argv.insert(argv.end(), more.begin(), more.end());
  return argv;
}

constexpr unsigned kEip = 8, kRip = 16;  // numbers in the 32-bit and 64-bit descriptions

TEST(GdbStub, BreaksStepsAndReadsThroughTheModes) {
  const std::uint16_t port = free_port();
  const auto at = labels("modes");
  Process vm{command("modes", port)};
  RspClient gdb{port};
  ASSERT_TRUE(gdb.connected());
  EXPECT_EQ(gdb.ask("?").substr(0, 13), "T05thread:1;");
  EXPECT_EQ(gdb.reg(kEip), at.at("_start"));
  EXPECT_EQ(gdb.ask("m100000,4"), "02b0ad1b");  // the multiboot header's magic

  // 16-bit code: PC is linear.
  EXPECT_EQ(gdb.ask("Z0,8000,1"), "OK");
  EXPECT_EQ(gdb.ask("vCont;c").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), 0x8000u);
  EXPECT_EQ(gdb.ask("vCont;s:1").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), 0x8003u);  // mov ax, imm16

  // 64-bit code, by the description for it: on the next connection.
  EXPECT_EQ(gdb.ask(fmt::format("Z1,{:x},1", at.at("back32.long"))), "OK");
  EXPECT_EQ(gdb.ask("vCont;c").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), at.at("back32.long"));
  gdb.close();
  RspClient wide{port};
  EXPECT_NE(wide.ask("qXfer:features:read:target.xml:0,200").find("i386:x86-64"), std::string::npos);
  EXPECT_EQ(wide.reg(kRip), at.at("back32.long"));
  EXPECT_EQ(wide.ask("s").substr(0, 3), "T05");
  EXPECT_EQ(wide.reg(0), 0x1122334455667788u);  // mov rax, imm64
  EXPECT_EQ(wide.ask("s").substr(0, 3), "T05");
  EXPECT_EQ(wide.reg(0), 0x55667788u);  // mov eax, eax

  // A watchpoint: mov [0x63c], edx.
  EXPECT_EQ(wide.ask("Z2,63c,4"), "OK");
  EXPECT_EQ(wide.ask("c"), "T05thread:1;watch:63c;");
  EXPECT_EQ(wide.ask("m63c,4"), "89674523");
  EXPECT_EQ(wide.ask("z2,63c,4"), "OK");
  EXPECT_EQ(wide.ask("m7fffff000000,1"), "E0e");
  EXPECT_EQ(wide.ask("c"), "W21");
  EXPECT_EQ(vm.wait_exit(seconds{30}), 33) << vm.output();
  EXPECT_NE(vm.output().find("PASS"), std::string::npos);
}

TEST(GdbStub, WorksUnderTheInstructionClock) {
  const std::uint16_t port = free_port();
  const auto at = labels("modes");
  Process vm{command("modes", port, {"--gdb-wait", "--clock", "instructions", "--cpus", "2"})};
  RspClient gdb{port};
  EXPECT_EQ(gdb.ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(gdb.ask(fmt::format("Z0,{:x},1", at.at("main"))), "OK");
  EXPECT_EQ(gdb.ask("c").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), at.at("main"));
  EXPECT_EQ(gdb.ask("s").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), at.at("main") + 6);  // mov [abs32], esp
  EXPECT_EQ(gdb.ask("c"), "W21");
  EXPECT_EQ(vm.wait_exit(seconds{30}), 33) << vm.output();
}

TEST(GdbStub, WritesRegistersAndMemory) {
  const std::uint16_t port = free_port();
  const auto at = labels("exitcode");
  Process vm{command("exitcode", port)};
  RspClient gdb{port};
  // The guest is made to run code of ours: mov al, 0x21; out 0xf4, al.
  EXPECT_EQ(gdb.ask("M200000,5:b021e6f4f4"), "OK");
  EXPECT_EQ(gdb.ask("m200000,5"), "b021e6f4f4");
  EXPECT_EQ(gdb.ask("P8=00002000"), "OK");
  EXPECT_EQ(gdb.ask("s").substr(0, 3), "T05");
  EXPECT_EQ(gdb.reg(kEip), 0x200002u);
  EXPECT_EQ(gdb.ask("P0=11000000"), "OK");
  EXPECT_EQ(gdb.ask("c"), "W23");
  EXPECT_EQ(vm.wait_exit(seconds{30}), 35) << vm.output();
}

TEST(GdbStub, StopsEveryVcpuAndLetsThemGo) {
  const std::uint16_t port = free_port();
  const auto at = labels("smp");
  Process vm{command("smp", port, {"--gdb-wait", "--cpus", "2"})};
  RspClient gdb{port};
  EXPECT_EQ(gdb.ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(gdb.ask(fmt::format("Z0,{:x},1", at.at("main64"))), "OK");
  EXPECT_EQ(gdb.ask("c").substr(0, 12), "T05thread:1;");
  EXPECT_EQ(gdb.ask("T2"), "OK");
  EXPECT_NE(gdb.ask("qThreadExtraInfo,2").find("53495049"), std::string::npos);  // "SIPI"
  // Interrupted again and again while they work on each other, the guest must not notice.
  for (int i = 0; i < 20; i++) {
    gdb.send("vCont;c");
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
    gdb.interrupt();
    const std::string stop = gdb.receive();
    if (stop[0] == 'W') break;
    ASSERT_EQ(stop.substr(0, 3), "T02") << stop;
    ASSERT_EQ(gdb.ask("vCont;s:1;c").substr(0, 3), "T05");
  }
  gdb.send("D");
  EXPECT_EQ(vm.wait_exit(seconds{60}), 33) << vm.output();
}

TEST(GdbStub, InterruptsHaltedAndLoopingGuests) {
  for (const auto& code : {loops_for_ever(), halts_for_good()}) {
    for (const char* clock : {"real", "instructions"}) {
      const TempFile image{multiboot(code)};
      const std::uint16_t port = free_port();
      Process vm{{TRAPLINE_EXECUTABLE, "run", "--kernel", image.path(), "--memory", "64M", "--timeout", "30", "--clock",
                  clock, "--gdb", std::to_string(port)}};
      RspClient gdb{port};
      EXPECT_EQ(gdb.ask("?").substr(0, 3), "T05");  // connecting stops it
      gdb.send("c");
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
      gdb.interrupt();
      EXPECT_EQ(gdb.receive().substr(0, 3), "T02");
      gdb.send("k");
      EXPECT_EQ(vm.wait_exit(seconds{20}), 0) << vm.output();
    }
  }
}

TEST(GdbStub, ShowsATripleFaultBeforeTheEnd) {
  const TempFile image{multiboot(triple_faults())};
  const std::uint16_t port = free_port();
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--kernel", image.path(), "--memory", "64M", "--timeout", "30", "--gdb",
              std::to_string(port), "--gdb-wait"}};
  RspClient gdb{port};
  EXPECT_EQ(gdb.ask("c").substr(0, 3), "T0b");
  EXPECT_EQ(gdb.reg(kEip), 0x10002du);  // the ud2
  EXPECT_EQ(gdb.ask("c"), "W04");
  EXPECT_EQ(vm.wait_exit(seconds{20}), 4) << vm.output();
}

TEST(GdbStub, KeepsBreakpointsOverAReset) {
  const TempFile image{multiboot({0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe})};  // mov al, 0xfe; out 0x64, al; jmp $
  const std::uint16_t port = free_port();
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--kernel", image.path(), "--memory", "64M", "--timeout", "30", "--gdb",
              std::to_string(port), "--gdb-wait"}};
  RspClient gdb{port};
  EXPECT_EQ(gdb.ask("Z0,100022,1"), "OK");
  for (int boot = 0; boot < 3; boot++) {
    EXPECT_EQ(gdb.ask("c").substr(0, 3), "T05");
    EXPECT_EQ(gdb.reg(kEip), 0x100022u);
    EXPECT_EQ(gdb.reg(0) & 0xff, 0xfeu);
  }
  gdb.send("k");
  EXPECT_EQ(vm.wait_exit(seconds{20}), 0) << vm.output();
}

TEST(GdbStub, GoesOnWhenTheClientVanishes) {
  const TempFile image{multiboot(loops_for_ever())};
  const std::uint16_t port = free_port();
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--kernel", image.path(), "--memory", "64M", "--timeout", "30", "--gdb",
              std::to_string(port)}};
  for (int i = 0; i < 5; i++) {
    RspClient gdb{port};
    EXPECT_EQ(gdb.ask("?").substr(0, 3), "T05");
    EXPECT_EQ(gdb.ask("Z0,1,1"), "OK");
    if (i % 2) gdb.send("c");  // else it vanishes while the VM is paused
    gdb.send_raw("$garbage without end \xff\xfe}}}}");
  }
  RspClient gdb{port};
  EXPECT_EQ(gdb.reg(kEip), 0x100020u);
  gdb.send("k");
  EXPECT_EQ(vm.wait_exit(seconds{20}), 0) << vm.output();
}

TEST(GdbStub, SaysThatThePortIsTaken) {
  const std::uint16_t port = free_port();
  Process first{command("modes", port)};
  ASSERT_TRUE(first.wait_for("waiting for a debugger", seconds{20}));
  const Finished second = run(command("modes", port));
  EXPECT_EQ(second.code, 3);
  EXPECT_EQ(second.output, fmt::format("trapline: --gdb {}: Address already in use: choose another port\n", port));
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait_exit(seconds{20}), 143);
}

TEST(GdbStub, ListensOnLoopbackOnly) {
  const std::uint16_t port = free_port();
  Process vm{command("modes", port)};
  ASSERT_TRUE(vm.wait_for("waiting for a debugger", seconds{20}));
  std::ifstream table{"/proc/net/tcp"};
  std::string text{std::istreambuf_iterator<char>{table}, {}};
  EXPECT_NE(text.find(fmt::format("0100007F:{:04X} 00000000:0000 0A", port)), std::string::npos);
  EXPECT_EQ(text.find(fmt::format("00000000:{:04X} 00000000:0000 0A", port)), std::string::npos);
}

TEST(GdbStub, SatisfiesGdbItself) {
  if (run({"sh", "-c", "command -v gdb"}).code != 0) GTEST_SKIP() << "gdb is not installed";
  const std::uint16_t port = free_port();
  Process vm{command("modes", port)};
  ASSERT_TRUE(vm.wait_for("waiting for a debugger", seconds{20}));
  std::vector<std::string> argv{"gdb", "-batch", "-nx"};
  for (const std::string& c :
       {std::string{"set pagination off"}, fmt::format("target remote 127.0.0.1:{}", port), std::string{"break *main"},
        std::string{"continue"}, std::string{"stepi"}, std::string{"info registers eip efer"},
        std::string{"p/x *(int*)0x100000"}, std::string{"monitor registers"}, std::string{"watch *(int*)0x600"},
        std::string{"continue"}, std::string{"delete"}, std::string{"p $xmm0.uint128"}, std::string{"continue"}})
    argv.insert(argv.end(), {"-ex", c});
  argv.push_back(guest("modes"));
  const Finished gdb = run(argv, {}, seconds{60});
  for (const char* expected : {"Breakpoint 1, main", "0x1badb002", "32-bit protected mode", "atchpoint 2: *(int*)0x600",
                               "exited with code 041"})
    EXPECT_NE(gdb.output.find(expected), std::string::npos) << expected << "\n" << gdb.output;
  EXPECT_EQ(vm.wait_exit(seconds{30}), 33) << vm.output();
}

}  // namespace
}  // namespace trapline::test
