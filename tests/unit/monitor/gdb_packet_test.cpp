#include "monitor/gdb_packet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace trapline::monitor::gdb {
namespace {

using Kind = Event::Kind;

std::span<const u8> bytes(std::string_view s) { return {reinterpret_cast<const u8*>(s.data()), s.size()}; }

std::vector<Event> read(std::string_view text) {
  PacketReader reader;
  reader.feed(bytes(text));
  std::vector<Event> events;
  while (auto e = reader.next()) events.push_back(*e);
  return events;
}

std::vector<Kind> kinds(std::string_view text) {
  std::vector<Kind> out;
  for (const Event& e : read(text)) out.push_back(e.kind);
  return out;
}

TEST(GdbPacket, ReadsPacketsAcknowledgementsAndTheInterrupt) {
  const auto events = read("+$g#67-\x03$m0,4#fd");
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].kind, Kind::ack);
  EXPECT_EQ(events[1].payload, "g");
  EXPECT_EQ(events[2].kind, Kind::nack);
  EXPECT_EQ(events[3].kind, Kind::interrupt);
  EXPECT_EQ(events[4].payload, "m0,4");
}

TEST(GdbPacket, ReadsBytesInPiecesOfAnySize) {
  PacketReader reader;
  std::vector<Event> events;
  for (const char c : std::string_view{"$vCont?#49$?#3f"}) {
    reader.feed(bytes({&c, 1}));
    while (auto e = reader.next()) events.push_back(*e);
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].payload, "vCont?");
  EXPECT_EQ(events[1].payload, "?");
}

TEST(GdbPacket, RefusesWrongChecksums) {
  EXPECT_THAT(kinds("$g#68"), testing::ElementsAre(Kind::damaged));
  EXPECT_THAT(kinds("$g#zz"), testing::ElementsAre(Kind::damaged));
  EXPECT_THAT(kinds("$g##7$g#67"), testing::ElementsAre(Kind::damaged, Kind::packet));
}

TEST(GdbPacket, StartsOverWhenAPacketHasNoEnd) {
  const auto events = read("$half$g#67");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].payload, "g");
}

TEST(GdbPacket, RefusesAPacketThatIsTooLong) {
  std::string text = "$" + std::string(kPacketBytes + 1, 'a') + "#";
  const u8 sum = static_cast<u8>((kPacketBytes + 1) * 'a');
  text += to_hex(std::span{&sum, 1});
  EXPECT_THAT(kinds(text + "$g#67"), testing::ElementsAre(Kind::damaged, Kind::packet));
}

TEST(GdbPacket, EscapesWhatHasAMeaning) {
  const std::string payload{"a}b#c$d*e\0f", 11};
  const std::string framed = frame(payload);
  EXPECT_EQ(std::count(framed.begin(), framed.end(), '#'), 1);
  EXPECT_EQ(framed.find('*'), std::string::npos);
  const auto events = read(framed);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].payload, payload);
}

TEST(GdbPacket, SurvivesAnyBytesAndThenAPacket) {
  for (u32 seed = 0; seed < 200; seed++) {
    std::mt19937 random{seed};
    std::string noise;
    for (int i = 0; i < 2000; i++)
      noise += "$#}+-\x03*0:,;"[random() % 11] ^ static_cast<char>(random() % 8 == 0 ? random() : 0);
    PacketReader reader;
    reader.feed(bytes(noise));
    while (reader.next()) {
    }
    reader.feed(bytes("$#00"));  // ends whatever was open
    reader.feed(bytes("$?#3f"));
    std::vector<Event> events;
    while (auto e = reader.next()) events.push_back(*e);
    ASSERT_FALSE(events.empty()) << "seed " << seed;
    EXPECT_EQ(events.back().payload, "?") << "seed " << seed;
  }
}

TEST(GdbPacket, NumbersStopAtTheirEndAndNeverOverflow) {
  std::string_view text = "1aF,rest";
  EXPECT_EQ(take_number(text), 0x1afu);
  EXPECT_EQ(text, ",rest");
  text = "ffffffffffffffff:";
  EXPECT_EQ(take_number(text), ~u64{0});
  text = "10000000000000000";
  EXPECT_EQ(take_number(text), std::nullopt);
  text = "";
  EXPECT_EQ(take_number(text), std::nullopt);
  text = "-1";
  EXPECT_EQ(take_number(text), std::nullopt);
}

TEST(GdbPacket, HexIsPairsOfDigits) {
  EXPECT_EQ(to_hex("A\xff"), "41ff");
  EXPECT_EQ(from_hex("41fF"), (std::vector<u8>{0x41, 0xff}));
  EXPECT_EQ(from_hex("4"), std::nullopt);
  EXPECT_EQ(from_hex("4g"), std::nullopt);
  EXPECT_EQ(from_hex(""), std::vector<u8>{});
}

}  // namespace
}  // namespace trapline::monitor::gdb
