#include "base/invariant.h"

#include <cstdlib>

#include "base/write.h"

namespace trapline {

namespace {
InvariantHandler g_handler = nullptr;
}

void set_invariant_handler(InvariantHandler handler) { g_handler = handler; }

void invariant_failed(const char* file, int line, const std::string& message) {
  if (g_handler) g_handler(file, line, message);
  say(fmt::format("internal error at {}:{}: {}", file, line, message));
  std::abort();
}

}  // namespace trapline
