// The init of a command's VM lies: whatever it sends, the session ends or goes on, and no more is kept than was agreed.
#include "monitor/command_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "channel/exit_codes.h"

namespace trapline::monitor {
namespace {

using agent::Header;
using agent::Kind;
using agent::Stream;

struct Session : testing::Test {
  EndEvent end;
  Event hurry;
  CommandSession session{end, hurry};

  void send(Kind kind, Stream stream, u32 length, const std::string& payload) {
    const Header header{kind, stream, 0, length};
    std::string frame(reinterpret_cast<const char*>(&header), sizeof header);
    frame += payload;
    session.received(std::as_bytes(std::span{frame}));
  }
  void finish(u32 signalled, u32 value) {
    const agent::Finished finished{signalled, value};
    send(Kind::finished, Stream::output, sizeof finished,
         std::string(reinterpret_cast<const char*>(&finished), sizeof finished));
  }
  std::optional<u32> code() const {
    const auto reason = end.get();
    return reason && reason->end == End::command ? std::optional{reason->value} : std::nullopt;
  }
  bool failed() const {
    const auto reason = end.get();
    return reason && reason->end == End::failed && reason->value == static_cast<u32>(ExitCode::vm_failed);
  }
};

TEST_F(Session, EndsWithTheCommandsCode) {
  send(Kind::started, Stream::input, 0, "");
  EXPECT_FALSE(code());
  finish(0, 7);
  EXPECT_EQ(code(), 7u);
}

TEST_F(Session, ASignalIs128AndMore) {
  finish(1, 11);
  EXPECT_EQ(code(), 139u);
}

TEST_F(Session, CodesAreBytes) {
  finish(7, 0xffffffff);
  EXPECT_LE(code().value(), 255u);
}

TEST_F(Session, FramesComeInAnyPieces) {
  const agent::Finished finished{0, 3};
  const Header header{Kind::finished, Stream::output, 0, sizeof finished};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  bytes.append(reinterpret_cast<const char*>(&finished), sizeof finished);
  for (const char c : bytes) {
    EXPECT_FALSE(code());
    session.received(std::as_bytes(std::span{&c, 1}));
  }
  EXPECT_EQ(code(), 3u);
}

TEST_F(Session, AReasonIsALineForATerminal) {
  send(Kind::failed, Stream::output, 9, "no \033[2J \nx");
  ASSERT_TRUE(failed());
  EXPECT_THAT(end.get()->text, testing::EndsWith("no ?[2J ?"));
}

TEST_F(Session, FramesWithoutSenseEndIt) {
  send(Kind::data, Stream::output, agent::kMostPayload + 1, "");
  EXPECT_TRUE(failed());
}

TEST_F(Session, AStreamThatIsNoneEndsIt) {
  send(Kind::data, static_cast<Stream>(3), 1, "x");
  EXPECT_TRUE(failed());
}

TEST_F(Session, MoreThanTheWindowEndsIt) {  // nobody writes it: the threads are not started
  const std::string piece(agent::kMostPayload, 'x');
  for (u32 sent = 0; sent < agent::kWindow; sent += agent::kMostPayload)
    send(Kind::data, Stream::output, agent::kMostPayload, piece);
  EXPECT_FALSE(end.get());
  send(Kind::data, Stream::output, 1, "x");
  EXPECT_TRUE(failed());
}

TEST_F(Session, EndsOnlyOnceAllIsWritten) {
  send(Kind::data, Stream::error, 1, "x");
  finish(0, 0);
  EXPECT_FALSE(end.get());
}

TEST_F(Session, ChanceDoesItNoHarm) {
  std::mt19937 random{5};
  for (int i = 0; i < 20'000; i++) {
    std::string bytes(random() % 40, 0);
    for (char& c : bytes) c = static_cast<char>(random() % 3 ? random() % 12 : random());
    session.received(std::as_bytes(std::span{bytes}));
  }
  EXPECT_FALSE(session.signal(1) && code());
}

}  // namespace
}  // namespace trapline::monitor
