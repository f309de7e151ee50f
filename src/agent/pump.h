// Carries the command's streams, its signals and its end between its descriptors and the port.
#pragma once

#include "agent/command.h"
#include "agent/protocol.h"

namespace trapline::agent {

// Until the command has ended and all it has written is with the host.
Finished pump(const Command& command, int signals);
// The last word.
void say_finished(const Finished& finished);

}  // namespace trapline::agent
