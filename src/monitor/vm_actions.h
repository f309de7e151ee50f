// What can be asked of a VM from outside, in which states, and what it answers: the vocabulary of the control socket
// (control.h), of signals (watch.h), and of whatever else will drive a VM.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "base/types.h"

namespace trapline::monitor {

enum class VmState : u8 {
  configured,  // nothing has been opened yet, or its files are being opened
  running,     // from the first power-on; over resets
  paused,      // the core is stopped: no vCPU runs, no request comes
  ended,       // for good; the exit code is known
};
const char* name_of(VmState state);

namespace action {
struct Pause {};             // running -> paused
struct Resume {};            // paused -> running
struct PressPowerButton {};  // running: as the button of a PC's case
struct QueryBalloon {};      // running or paused
struct SetBalloon {          // likewise: what the guest shall give away
  u64 bytes;
};
}  // namespace action
using Action =
    std::variant<action::Pause, action::Resume, action::PressPowerButton, action::QueryBalloon, action::SetBalloon>;

// May it be asked in this state?
bool allowed(const Action& action, VmState state);

struct BalloonSizes {
  u64 target = 0, actual = 0;  // bytes
};
using Answer = std::variant<std::monostate, BalloonSizes>;

struct ActionError {
  enum class Kind : u8 {
    wrong_state,    // value: the VmState
    deterministic,  // --clock instructions: nothing is done from outside
    no_balloon,
    too_large,      // value: bytes of memory that the guest has
    not_listening,  // no guest that hears the power button
    // -- Of lines. said: what was wrong
    unknown_request,
    no_number,
    unintelligible,  // the answer, to who has asked
  };
  Kind kind;
  u64 value = 0;
  std::string said = {};
};

// -- The control socket's lines
// "balloon [BYTES]"
Result<Action, ActionError> parse_action(std::string_view request);
// "ok", "ok TARGET ACTUAL", "refused KIND VALUE SAID"; and what the line says.
std::string line_of(const Result<Answer, ActionError>& answer);
Result<Answer, ActionError> parse_answer(std::string_view line);

}  // namespace trapline::monitor
