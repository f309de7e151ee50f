// What may be asked of a VM, when, and how it says no.
#include "monitor/vm_actions.h"

#include <gtest/gtest.h>

#include "channel/exit_codes.h"
#include "monitor/vm.h"

namespace trapline::monitor {
namespace {

using Kind = ActionError::Kind;

constexpr VmState kStates[] = {VmState::configured, VmState::running, VmState::paused, VmState::ended};

std::string states_for(const Action& what) {
  std::string names;
  for (const VmState s : kStates)
    if (allowed(what, s)) names += std::string{name_of(s)} + " ";
  return names;
}

TEST(VmActions, EachHasItsStates) {
  EXPECT_EQ(states_for(action::Pause{}), "running ");
  EXPECT_EQ(states_for(action::Resume{}), "paused ");
  EXPECT_EQ(states_for(action::PressPowerButton{}), "running ");
  EXPECT_EQ(states_for(action::QueryBalloon{}), "running paused ");
  EXPECT_EQ(states_for(action::SetBalloon{MiB}), "running paused ");
}

TEST(VmActions, RequestsAreLines) {
  EXPECT_TRUE(std::holds_alternative<action::QueryBalloon>(*parse_action("balloon")));
  EXPECT_EQ(std::get<action::SetBalloon>(*parse_action("balloon 4096")).bytes, 4096u);
  for (const char* bad : {"balloon ", "balloon x", "balloon 1x", "balloon -1", "balloon 18446744073709551616"})
    EXPECT_EQ(parse_action(bad).error(), "no number of bytes") << bad;
  for (const char* unknown : {"", "ball", "pause", "quit"})
    EXPECT_EQ(parse_action(unknown).error(), "it does not know this request") << unknown;
}

TEST(VmActions, AnswersAreLines) {
  EXPECT_EQ(line_of(Answer{BalloonSizes{8192, 4096}}), "ok 8192 4096");
  EXPECT_EQ(line_of(Answer{}), "ok");
  EXPECT_EQ(line_of(Err{ActionError{Kind::too_large, 512 * MiB}}), "it has 512 MiB of memory: give less");
  EXPECT_EQ(line_of(Err{ActionError{Kind::wrong_state, static_cast<u64>(VmState::ended)}}), "it is ended");
}

TEST(Vm, BeforeAndAfterItsLifeItRefusesWithItsState) {
  machine::Config config;
  config.kernel = "/nonexistent/kernel";
  std::string said;
  Vm vm{config, {[&](const std::string& text, int) { said += text + "\n"; }, [](const std::string&, int) {}}};
  const auto refusal = [&] {
    const auto answer = vm.act(action::PressPowerButton{});
    return answer ? "done" : answer.error().text();
  };
  EXPECT_EQ(vm.state(), VmState::configured);
  EXPECT_EQ(refusal(), "it is configured");
  EXPECT_EQ(vm.run(), static_cast<int>(ExitCode::bad_input));
  EXPECT_NE(said.find("/nonexistent/kernel"), std::string::npos) << said;
  EXPECT_EQ(vm.state(), VmState::ended);
  EXPECT_EQ(refusal(), "it is ended");
}

}  // namespace
}  // namespace trapline::monitor
