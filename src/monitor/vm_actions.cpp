#include "monitor/vm_actions.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/overloaded.h"

namespace trapline::monitor {

const char* name_of(VmState state) {
  switch (state) {
    case VmState::configured:
      return "configured";
    case VmState::running:
      return "running";
    case VmState::paused:
      return "paused";
    case VmState::ended:
      return "ended";
  }
  return "?";
}

bool allowed(const Action& action, VmState state) {
  const bool alive = state == VmState::running || state == VmState::paused;
  return std::visit(Overloaded{
                        [&](action::Pause) { return state == VmState::running; },
                        [&](action::Resume) { return state == VmState::paused; },
                        [&](action::PressPowerButton) { return state == VmState::running; },
                        [&](action::QueryBalloon) { return alive; },
                        [&](action::SetBalloon) { return alive; },
                    },
                    action);
}

namespace {

constexpr std::size_t kMostSaid = 64;  // of a request, in the answer's line

std::optional<u64> number(std::string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional{value} : std::nullopt;
}

// Up to the next space, which goes with it.
std::string_view take_word(std::string_view& text) {
  const auto end = std::min(text.find(' '), text.size());
  const auto word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

}  // namespace

Result<Action, ActionError> parse_action(std::string_view request) {
  constexpr std::string_view kBalloon = "balloon";
  if (!request.starts_with(kBalloon))
    return Err{ActionError{ActionError::Kind::unknown_request, 0, std::string{request.substr(0, kMostSaid)}}};
  std::string_view size = request.substr(kBalloon.size());
  if (size.empty()) return Action{action::QueryBalloon{}};
  size.remove_prefix(1);
  const auto bytes = number(size);
  if (!bytes) return Err{ActionError{ActionError::Kind::no_number, 0, std::string{size.substr(0, kMostSaid)}}};
  return Action{action::SetBalloon{*bytes}};
}

std::string line_of(const Result<Answer, ActionError>& answer) {
  if (!answer) {
    const ActionError& e = answer.error();
    return fmt::format("refused {} {} {}", static_cast<unsigned>(e.kind), e.value, e.said);
  }
  if (const auto* sizes = std::get_if<BalloonSizes>(&*answer))
    return fmt::format("ok {} {}", sizes->target, sizes->actual);
  return "ok";
}

Result<Answer, ActionError> parse_answer(std::string_view line) {
  const Err unintelligible{ActionError{ActionError::Kind::unintelligible, 0, std::string{line}}};
  const auto word = take_word(line);
  if (word == "ok" && line.empty()) return Answer{};
  const auto first = number(take_word(line)), second = number(take_word(line));
  if (!first || !second) return unintelligible;
  if (word == "ok") return Answer{BalloonSizes{*first, *second}};
  if (word != "refused" || *first >= static_cast<u64>(ActionError::Kind::unintelligible)) return unintelligible;
  return Err{ActionError{static_cast<ActionError::Kind>(*first), *second, std::string{line}}};
}

}  // namespace trapline::monitor
