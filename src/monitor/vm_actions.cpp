#include "monitor/vm_actions.h"

#include <fmt/format.h>

#include <charconv>

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

std::string ActionError::text() const {
  switch (kind) {
    case Kind::wrong_state:
      return fmt::format("it is {}", name_of(static_cast<VmState>(value)));
    case Kind::deterministic:
      return "under --clock instructions nothing is done from outside";
    case Kind::no_balloon:
      return "it has no balloon: start it with --balloon 0";
    case Kind::too_large:
      return fmt::format("it has {} MiB of memory: give less", value / MiB);
    case Kind::not_listening:
      return "its guest does not listen to the power button";
  }
  return {};
}

Result<Action, std::string> parse_action(std::string_view request) {
  constexpr std::string_view kBalloon = "balloon";
  if (!request.starts_with(kBalloon)) return Err{std::string{"it does not know this request"}};
  std::string_view size = request.substr(kBalloon.size());
  if (size.empty()) return Action{action::QueryBalloon{}};
  size.remove_prefix(1);
  u64 bytes = 0;
  const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), bytes);
  if (error != std::errc{} || end != size.data() + size.size()) return Err{std::string{"no number of bytes"}};
  return Action{action::SetBalloon{bytes}};
}

std::string line_of(const Result<Answer, ActionError>& answer) {
  if (!answer) return answer.error().text();
  if (const auto* sizes = std::get_if<BalloonSizes>(&*answer))
    return fmt::format("ok {} {}", sizes->target, sizes->actual);
  return "ok";
}

}  // namespace trapline::monitor
