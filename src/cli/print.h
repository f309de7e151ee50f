// Standard output of the commands that print a text. Where it cannot be written, the command has failed.
#pragma once

#include <string_view>

namespace trapline::cli {

// Writes it; `code`, or console_lost and a line on standard error.
int print(std::string_view text, int code);

}  // namespace trapline::cli
