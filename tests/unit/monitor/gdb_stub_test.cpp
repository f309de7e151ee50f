#include "monitor/gdb_stub.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace trapline::monitor::gdb {
namespace {

using channel::DebugRegisters;
using channel::DebugReport;
using channel::DebugStop;
using channel::StopKind;
using testing::HasSubstr;
using testing::StartsWith;

struct FakeTarget : Target {
  std::vector<DebugRegisters> regs = std::vector<DebugRegisters>(2);
  std::map<u64, u8> memory;  // what is mapped
  std::vector<DebugStop> stops;
  struct Resume {
    u64 run, step;
    bool interrupts;
    bool operator==(const Resume&) const = default;
  };
  std::vector<Resume> resumes;
  int interrupts = 0, ends = 0;
  bool alive = true;

  u32 vcpus() const override { return static_cast<u32>(regs.size()); }
  bool read_registers(u32 vcpu, DebugRegisters& out) override {
    if (!alive) return false;
    out = regs.at(vcpu);
    return true;
  }
  bool write_registers(u32 vcpu, const DebugRegisters& in) override {
    regs.at(vcpu) = in;
    return alive;
  }
  std::size_t read_memory(u32, Gva address, std::span<u8> out) override {
    std::size_t n = 0;
    for (auto it = memory.find(address.raw); n < out.size() && it != memory.end(); it = memory.find(address.raw + n))
      out[n++] = it->second;
    return n;
  }
  std::size_t write_memory(u32, Gva address, std::span<const u8> in) override {
    std::size_t n = 0;
    for (; n < in.size() && memory.contains(address.raw + n); n++) memory[address.raw + n] = in[n];
    return n;
  }
  std::optional<Gpa> translate(u32, Gva address) override {
    return address < Gva{0x1000} ? std::nullopt : std::optional{Gpa{address.raw & 0xffff}};
  }
  void set_stops(const std::vector<DebugStop>& s) override { stops = s; }
  void resume(u64 run, u64 step, bool step_interrupts) override { resumes.push_back({run, step, step_interrupts}); }
  void interrupt() override { interrupts++; }
  void end() override { ends++; }
};

struct GdbStub : testing::Test {
  FakeTarget target;
  Settings settings;
  std::string sent;
  std::unique_ptr<Stub> stub;

  void connect(bool long_mode = true, Stop why = {}) {
    for (auto& r : target.regs) r.efer = long_mode ? 0x500 : 0;
    stub = std::make_unique<Stub>(target, settings, why, [this](std::string_view b) { sent += b; });
    EXPECT_EQ(ask("QStartNoAckMode"), "OK");
    raw("+");
  }
  void raw(std::string_view text) { stub->receive({reinterpret_cast<const u8*>(text.data()), text.size()}); }
  // The payload of the one packet that came, or "(none)".
  std::string answer() {
    PacketReader reader;
    reader.feed({reinterpret_cast<const u8*>(sent.data()), sent.size()});
    sent.clear();
    std::string payload = "(none)";
    while (auto e = reader.next())
      if (e->kind == Event::Kind::packet) payload = e->payload;
    return payload;
  }
  std::string ask(std::string_view payload) {
    sent.clear();
    raw(frame(payload));
    return answer();
  }
};

TEST_F(GdbStub, AcknowledgesUntilToldNotTo) {
  stub = std::make_unique<Stub>(target, settings, Stop{}, [this](std::string_view b) { sent += b; });
  raw("$?#3f");
  EXPECT_THAT(sent, StartsWith("+$T05thread:1;"));
  sent.clear();
  raw("$?#00");
  EXPECT_EQ(sent, "-");
  sent.clear();
  raw("-");
  EXPECT_THAT(sent, StartsWith("$T05"));  // once more
  sent.clear();
  raw(frame("QStartNoAckMode"));
  EXPECT_EQ(sent, "+$OK#9a");
  sent.clear();
  raw("$?#3f");
  EXPECT_THAT(sent, StartsWith("$T05"));
}

TEST_F(GdbStub, DescribesRegistersAsTheModeSays) {
  connect(true);
  EXPECT_THAT(ask("qXfer:features:read:target.xml:0,4000"), HasSubstr("<architecture>i386:x86-64<"));
  connect(false);
  EXPECT_THAT(ask("qXfer:features:read:target.xml:0,4000"), HasSubstr("<architecture>i386<"));
  EXPECT_EQ(ask("qRcmd," + to_hex("description 64")).substr(0, 2), to_hex("i"));
  connect(false);
  EXPECT_THAT(ask("qXfer:features:read:target.xml:0,4000"), HasSubstr("<architecture>i386:x86-64<"));
}

TEST_F(GdbStub, GivesTheDescriptionInParts) {
  connect();
  std::string xml;
  for (;;) {
    const std::string part = ask(fmt::format("qXfer:features:read:target.xml:{:x},64", xml.size()));
    ASSERT_FALSE(part.empty());
    xml += part.substr(1);
    if (part[0] == 'l') break;
    ASSERT_EQ(part[0], 'm');
  }
  EXPECT_EQ(xml, RegisterLayout::of(true).description());
  EXPECT_THAT(ask("qXfer:features:read:target.xml:ffffffffffffffff,64"), StartsWith("E"));
  EXPECT_THAT(ask("qXfer:features:read:../etc/passwd:0,64"), StartsWith("E"));
}

TEST_F(GdbStub, ReadsAndWritesRegisters) {
  target.regs[0].gpr[0] = 0x1122334455667788;
  target.regs[0].gpr[3] = 0xb0b;
  target.regs[0].pc = Gva{0xffffffff81000000};
  connect();
  EXPECT_EQ(ask("p0"), "8877665544332211");
  EXPECT_THAT(ask("g"), StartsWith("88776655443322110b0b000000000000"));  // rax, rbx
  EXPECT_EQ(ask("p10"), "00000081ffffffff");
  EXPECT_EQ(ask("P1=efbeadde00000000"), "OK");
  EXPECT_EQ(target.regs[0].gpr[3], 0xdeadbeefu);
  std::string all = ask("g");
  all.replace(0, 2, "99");
  EXPECT_EQ(ask("G" + all), "OK");
  EXPECT_EQ(target.regs[0].gpr[0], 0x1122334455667799u);
}

TEST_F(GdbStub, RefusesWritesOfReadOnlyOrMalformedRegisters) {
  target.regs[0].seg[1].selector = 0x10;
  connect();
  EXPECT_THAT(ask("P12=08000000"), StartsWith("E"));  // CS
  EXPECT_EQ(ask("P12=10000000"), "OK");               // no change
  EXPECT_THAT(ask("P0=00"), StartsWith("E"));
  EXPECT_THAT(ask("P0=xxxxxxxxxxxxxxxx"), StartsWith("E"));
  EXPECT_THAT(ask("Pffff=00"), StartsWith("E"));
  EXPECT_THAT(ask("p"), StartsWith("E"));
  EXPECT_THAT(ask("pffffffffffffffff"), StartsWith("E"));
  EXPECT_THAT(ask("G00"), StartsWith("E"));
  EXPECT_EQ(target.regs[0].gpr[0], 0u);
}

TEST_F(GdbStub, KeepsTheX87TagWord) {
  target.regs[0].x87.image[3] = 7 << 3;  // TOP = 7: ST0 is physical 7
  target.regs[0].x87.image[4] = 0x80;
  const u8 one[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f};
  std::copy_n(one, 10, target.regs[0].x87.image + 32);
  connect();
  EXPECT_EQ(ask("p22"), "ff3f0000");  // valid; the others empty
  EXPECT_EQ(ask("P22=ff0f0000"), "OK");
  EXPECT_EQ(target.regs[0].x87.image[4], 0xc0);  // physical 6 is in use as well
}

TEST_F(GdbStub, ReadsMemoryUpToTheFirstUnmappedByte) {
  for (u64 i = 0; i < 8; i++) target.memory[0x1000 + i] = static_cast<u8>(0xa0 + i);
  connect();
  EXPECT_EQ(ask("m1000,4"), "a0a1a2a3");
  EXPECT_EQ(ask("m1006,8"), "a6a7");
  EXPECT_EQ(ask("m2000,1"), "E0e");
  EXPECT_EQ(ask("m1000,0"), "");
  EXPECT_EQ(ask("m1000,ffffffffffffffff"), "a0a1a2a3a4a5a6a7");
  for (const char* bad : {"m", "m1000", "m,4", "mx,4", "m1000,4x", "m11111111111111111,4"})
    EXPECT_THAT(ask(bad), StartsWith("E")) << bad;
}

TEST_F(GdbStub, WritesMemoryInHexAndBinary) {
  for (u64 i = 0; i < 4; i++) target.memory[0x1000 + i] = 0;
  connect();
  EXPECT_EQ(ask("M1000,2:1122"), "OK");
  EXPECT_EQ(ask("X1002,2:$}"), "OK");  // framed with escapes
  EXPECT_EQ(target.memory[0x1001], 0x22);
  EXPECT_EQ(target.memory[0x1002], '$');
  EXPECT_EQ(target.memory[0x1003], '}');
  EXPECT_EQ(ask("X1000,0:"), "OK");
  EXPECT_EQ(ask("X1003,2:ab"), "E0e");
  for (const char* bad : {"M1000,2:11", "M1000,1:zz", "M1000,1", "X1000,3:ab", "X1000,ffffffff:a"})
    EXPECT_THAT(ask(bad), StartsWith("E")) << bad;
}

TEST_F(GdbStub, BreakpointsAndWatchpointsReachTheTarget) {
  connect();
  EXPECT_EQ(ask("Z0,1000,1"), "OK");
  EXPECT_EQ(ask("Z0,1000,1"), "OK");  // the same one
  EXPECT_EQ(ask("Z1,2000,1"), "OK");
  EXPECT_EQ(ask("Z2,3000,8"), "OK");
  ASSERT_EQ(target.stops.size(), 3u);
  EXPECT_EQ(target.stops[0].address, Gva{0x1000});
  EXPECT_EQ(target.stops[2].kind, StopKind::write);
  EXPECT_EQ(target.stops[2].length, 8u);
  EXPECT_EQ(ask("z0,1000,1"), "OK");
  EXPECT_EQ(target.stops.size(), 2u);
  EXPECT_EQ(ask("Z5,1,1"), "");
  for (const char* bad : {"Z", "Z0", "Z0,", "Z0,1", "Z2,1,0", "Z2,1,ffffffff"})
    EXPECT_THAT(ask(bad), StartsWith("E")) << bad;
}

TEST_F(GdbStub, RefusesMoreBreakpointsThanTheMailboxHolds) {
  connect();
  for (u32 i = 0; i < channel::DebugMailbox::kStops; i++) ASSERT_EQ(ask(fmt::format("Z0,{:x},1", 0x1000 + i)), "OK");
  EXPECT_EQ(ask("Z0,1,1"), "E1c");
  EXPECT_EQ(target.stops.size(), channel::DebugMailbox::kStops);
}

TEST_F(GdbStub, ContinuesAndTellsTheBreakpoint) {
  connect();
  EXPECT_THAT(ask("qSupported:swbreak+;hwbreak+"), HasSubstr("PacketSize=4000"));
  ask("Z0,1000,1");
  EXPECT_EQ(ask("vCont;c"), "(none)");
  EXPECT_EQ(target.resumes, (std::vector<FakeTarget::Resume>{{3, 0, false}}));
  EXPECT_EQ(ask("m0,1"), "(none)");  // it runs: nothing may be answered
  target.regs[1].pc = Gva{0x1000};
  stub->stopped({.vcpu = 1, .report = DebugReport::breakpoint});
  EXPECT_EQ(answer(), "T05thread:2;swbreak:;");
  EXPECT_EQ(ask("qC"), "QC2");
  EXPECT_EQ(ask("?"), "T05thread:2;swbreak:;");
}

TEST_F(GdbStub, TellsTheWatchpoint) {
  connect();
  ask("c");
  stub->stopped({.vcpu = 0, .report = DebugReport::watchpoint, .kind = StopKind::write, .address = Gva{0x3000}});
  EXPECT_EQ(answer(), "T05thread:1;watch:3000;");
}

TEST_F(GdbStub, InterruptsARunningVmOnly) {
  connect();
  raw("\x03");
  EXPECT_EQ(target.interrupts, 0);
  ask("c");
  raw("\x03");
  EXPECT_EQ(target.interrupts, 1);
  stub->stopped({});
  EXPECT_THAT(answer(), StartsWith("T02"));
}

TEST_F(GdbStub, StepsByThread) {
  connect();
  ask("vCont;s:2;c");
  EXPECT_EQ(target.resumes.back(), (FakeTarget::Resume{1, 2, false}));
  stub->stopped({.vcpu = 1, .report = DebugReport::step});
  ask("vCont;s:2");
  EXPECT_EQ(target.resumes.back(), (FakeTarget::Resume{0, 2, false}));
  stub->stopped({.vcpu = 1, .report = DebugReport::step});
  ask("s");  // the current thread
  EXPECT_EQ(target.resumes.back(), (FakeTarget::Resume{0, 2, false}));
  stub->stopped({.vcpu = 1, .report = DebugReport::step});
  EXPECT_EQ(ask("Hc1"), "OK");
  ask("c");
  EXPECT_EQ(target.resumes.back(), (FakeTarget::Resume{1, 0, false}));
  stub->stopped({});
  ask("qRcmd," + to_hex("step-interrupts on"));
  ask("vCont;S05:1");
  EXPECT_EQ(target.resumes.back(), (FakeTarget::Resume{0, 1, true}));
  stub->stopped({});
  ask("c4000");
  EXPECT_EQ(target.regs[1].pc, Gva{0x4000});  // vCPU 1 has been the current one since its steps
}

TEST_F(GdbStub, RefusesMalformedResumption) {
  connect();
  for (const char* bad : {"vCont", "vCont;", "vCont;x", "vCont;c:", "vCont;c:9", "vCont;c-1", "vCont;c:1:2", "vContc",
                          "cx", "C", "Sxx", "Hg9", "Hx1", "H"})
    EXPECT_THAT(ask(bad), StartsWith("E")) << bad;
  EXPECT_TRUE(target.resumes.empty());
}

TEST_F(GdbStub, KnowsAThreadPerVcpu) {
  connect();
  EXPECT_EQ(ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(ask("qsThreadInfo"), "l");
  EXPECT_EQ(ask("T2"), "OK");
  EXPECT_THAT(ask("T3"), StartsWith("E"));
  EXPECT_THAT(ask("T0"), StartsWith("E"));
  target.regs[1].mode = 6, target.regs[1].cpl = 3, target.regs[1].activity = channel::Activity::halted;
  EXPECT_EQ(ask("qThreadExtraInfo,2"), to_hex("vCPU 1: 64-bit mode, ring 3, halted"));
  EXPECT_EQ(ask("Hg2"), "OK");
  target.regs[1].gpr[0] = 5;
  EXPECT_EQ(ask("p0"), "0500000000000000");
}

TEST_F(GdbStub, RunsMonitorCommands) {
  connect();
  const auto command = [&](std::string_view text) {
    const auto bytes = from_hex(ask("qRcmd," + to_hex(text)));
    return bytes ? std::string{bytes->begin(), bytes->end()} : "(no hex)";
  };
  EXPECT_THAT(command("help"), HasSubstr("translate"));
  EXPECT_THAT(command("registers"), HasSubstr("efer 500"));
  EXPECT_EQ(command("translate 0xffff1234"), "0xffff1234 -> 0x1234\n");
  EXPECT_EQ(command("translate 10"), "0x10 is not mapped\n");
  EXPECT_THAT(command("translate ten"), HasSubstr("hexadecimal"));
  EXPECT_THAT(command("frobnicate"), HasSubstr("no such command"));
  target.regs[0].mode = 0xff,
  target.regs[0].activity = static_cast<channel::Activity>(0xff);  // a core may say anything
  EXPECT_THAT(command("registers"), HasSubstr("unknown mode"));
  EXPECT_THAT(ask("qRcmd,zz"), StartsWith("E"));
}

TEST_F(GdbStub, DetachesWithoutBreakpoints) {
  connect();
  ask("Z0,1000,1");
  EXPECT_EQ(ask("D"), "OK");
  EXPECT_TRUE(target.stops.empty());
  EXPECT_EQ(target.resumes.size(), 1u);
  EXPECT_TRUE(stub->closed());
  EXPECT_EQ(target.ends, 0);
}

TEST_F(GdbStub, KillEndsTheVm) {
  connect();
  EXPECT_EQ(ask("k"), "(none)");
  EXPECT_EQ(target.ends, 1);
  EXPECT_TRUE(stub->closed());
}

TEST_F(GdbStub, TellsHowTheVmEnded) {
  connect();
  ask("c");
  sent.clear();
  stub->ended(33, 0);
  EXPECT_EQ(answer(), "W21");
  connect();
  ask("c");
  sent.clear();
  stub->ended(143, 15);
  EXPECT_EQ(answer(), "X0f");
  connect();
  sent.clear();
  stub->ended(0, 0);  // it was paused: the client expects nothing
  EXPECT_EQ(sent, "");
}

TEST_F(GdbStub, AnswersWhenTheVmIsGone) {
  connect();
  target.alive = false;
  for (const char* packet : {"g", "p0", "P0=0000000000000000", "m1000,4", "?", "qThreadExtraInfo,1"})
    EXPECT_NE(ask(packet), "(none)") << packet;
}

TEST_F(GdbStub, DoesNotBelieveACoreAboutItsVcpus) {
  connect();
  ask("c");
  stub->stopped({.vcpu = 77, .report = DebugReport::breakpoint});
  EXPECT_EQ(answer(), "T05thread:1;");
}

TEST_F(GdbStub, AnswersUnknownPacketsWithNothing) {
  connect();
  for (const char* packet :
       {"", "!", "R00", "vMustReplyEmpty", "qTStatus", "QNonStop:1", "vRun", "\xff\xfe", "i", "B", "vFile:open:"})
    EXPECT_EQ(ask(packet), "") << packet;
}

TEST_F(GdbStub, SurvivesAnyPacket) {
  static constexpr const char* kStarts[] = {"g",
                                            "G",
                                            "p",
                                            "P",
                                            "m",
                                            "M",
                                            "X",
                                            "Z0,",
                                            "z2,",
                                            "H",
                                            "T",
                                            "qXfer:features:read:",
                                            "qRcmd,",
                                            "vCont;",
                                            "vCont",
                                            "c",
                                            "s",
                                            "C",
                                            "S",
                                            "q",
                                            "Q",
                                            "v",
                                            "qThreadExtraInfo,",
                                            "D",
                                            "?"};
  for (u32 seed = 0; seed < 3000; seed++) {
    std::mt19937 random{seed};
    connect(seed % 2);
    std::string payload = kStarts[random() % std::size(kStarts)];
    for (u32 n = random() % 40; n > 0; n--)
      payload += random() % 4 ? "0123456789abcdef,;:=-"[random() % 21] : static_cast<char>(random());
    raw(frame(payload));
    raw(payload);
    if (!stub->running() && !stub->closed()) {
      EXPECT_NE(ask("?"), "(none)") << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace trapline::monitor::gdb
