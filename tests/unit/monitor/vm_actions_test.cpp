// What may be asked of a VM, when, and how it says no.
#include "monitor/vm_actions.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>

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

template <class T>
std::pair<Kind, std::string> error_of(const Result<T, ActionError>& result) {
  return {result.error().kind, result.error().said};
}

TEST(VmActions, RequestsAreLines) {
  EXPECT_TRUE(std::holds_alternative<action::QueryBalloon>(*parse_action("balloon")));
  EXPECT_EQ(std::get<action::SetBalloon>(*parse_action("balloon 4096")).bytes, 4096u);
  for (const char* bad : {"balloon ", "balloon x", "balloon 1x", "balloon -1", "balloon 18446744073709551616"})
    EXPECT_EQ(error_of(parse_action(bad)), std::pair(Kind::no_number, std::string{bad}.substr(8))) << bad;
  for (const char* unknown : {"", "ball", "pause", "quit"})
    EXPECT_EQ(error_of(parse_action(unknown)), std::pair(Kind::unknown_request, std::string{unknown})) << unknown;
}

TEST(VmActions, AnswersAreLines) {
  EXPECT_EQ(line_of(Answer{BalloonSizes{8192, 4096}}), "ok 8192 4096");
  EXPECT_EQ(line_of(Answer{}), "ok");
  const auto back = [](const Result<Answer, ActionError>& answer) { return parse_answer(line_of(answer)); };
  EXPECT_TRUE(std::holds_alternative<std::monostate>(*back(Answer{})));
  EXPECT_EQ(std::get<BalloonSizes>(*back(Answer{BalloonSizes{8192, 4096}})).actual, 4096u);
  EXPECT_EQ(back(Err{ActionError{Kind::too_large, 512 * MiB}}).error().value, 512 * MiB);
  EXPECT_EQ(error_of(back(Err{ActionError{Kind::no_number, 0, "1 x"}})),
            std::pair(Kind::no_number, std::string{"1 x"}));
  for (const char* line : {"", "ok 1", "ok x y", "refused", "refused 0", "refused 99 0 x", "no 1 2", "refused -1 0"})
    EXPECT_EQ(error_of(parse_answer(line)), std::pair(Kind::unintelligible, std::string{line}));
}

TEST(Vm, BeforeAndAfterItsLifeItRefusesWithItsState) {
  machine::Config config;
  config.kernel = "/nonexistent/kernel";
  std::string said;
  Vm vm{config,
        {[&](const std::string& text, int) { said += text + "\n"; }, [](const std::string&, int) {},
         [](const VmError& error) { return error.value; }}};
  const auto refusal = [&] {
    const auto answer = vm.act(action::PressPowerButton{});
    return answer ? std::nullopt : std::optional{static_cast<VmState>(answer.error().value)};
  };
  EXPECT_EQ(vm.state(), VmState::configured);
  EXPECT_EQ(refusal(), VmState::configured);
  EXPECT_EQ(vm.run(), static_cast<int>(ExitCode::bad_input));
  EXPECT_NE(said.find("/nonexistent/kernel"), std::string::npos) << said;
  EXPECT_EQ(vm.state(), VmState::ended);
  EXPECT_EQ(refusal(), VmState::ended);
}

}  // namespace
}  // namespace trapline::monitor
