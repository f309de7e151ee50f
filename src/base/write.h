// Writing to descriptors that may be full, slow or gone. Nothing here throws: where standard error leads nowhere, the
// exit code has to do.
#pragma once

#include <string_view>

namespace trapline {

// All of `text`. 0, or the errno of the write that failed. `cancel` (-1: none) ends the waiting for a slow reader once
// it is readable: ECANCELED. No piece is longer than what a pipe takes whole when it polls writable (PIPE_BUF).
int write_all(int fd, std::string_view text, int cancel = -1) noexcept;

// One line on standard error: "trapline: TEXT". `cancel` as above.
void say(std::string_view text, int cancel = -1) noexcept;

}  // namespace trapline
