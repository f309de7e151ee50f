#include "cli/print.h"

#include <fmt/format.h>
#include <string.h>

#include <cerrno>
#include <cstdio>

#include "base/write.h"
#include "channel/exit_codes.h"

namespace trapline::cli {

int print(std::string_view text, int code) {
  errno = 0;
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (std::fflush(stdout) == 0 && whole && !std::ferror(stdout)) return code;  // or an earlier write has failed
  say(fmt::format("standard output: {}: it could not be written", ::strerror(errno ? errno : EIO)));
  return static_cast<int>(ExitCode::console_lost);
}

}  // namespace trapline::cli
