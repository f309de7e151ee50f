// The command: its process, and its three streams as descriptors.
#pragma once

#include <sys/types.h>

#include "agent/config.h"

namespace trapline::agent {

struct Command {
  pid_t pid = -1;
  // The init's ends. With a terminal, input and output are the same one, and there is no error stream (-1).
  int input = -1, output = -1, error = -1;
};

// Starts it, as the user it shall be, in its directory. A command that cannot be executed ends with 126 or 127 and a
// line on its standard error.
Command start_command(const Config& config);
void resize(const Command& command, u16 rows, u16 columns);

}  // namespace trapline::agent
