// INVARIANT(condition, "format {}", args...): our own mistakes. Stays on in release builds. The handler that the
// process installs (core: publish a report and stop the VM; tests: abort) never returns.
#pragma once

#include <fmt/format.h>

#include <string>

namespace trapline {

using InvariantHandler = void (*)(const char* file, int line, const std::string& message);
void set_invariant_handler(InvariantHandler handler);
[[noreturn]] void invariant_failed(const char* file, int line, const std::string& message);

}  // namespace trapline

#define INVARIANT(condition, ...)                                                                   \
  do {                                                                                              \
    if (!(condition)) [[unlikely]]                                                                  \
      ::trapline::invariant_failed(__FILE__, __LINE__, #condition ": " + fmt::format(__VA_ARGS__)); \
  } while (0)
