// The launch parameters: any bytes are refused or are what pack() would have written.
#include <cstring>

#include "base/invariant.h"
#include "channel/launch.h"

using namespace trapline;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const auto launch = channel::unpack({data, size});
  if (!launch) return 0;
  const auto again = channel::unpack(channel::pack(*launch));
  INVARIANT(again, "what was accepted is not accepted again");
  INVARIANT(again->modules.size() == launch->modules.size() && again->kernel_name == launch->kernel_name &&
                again->command_line == launch->command_line && again->memory == launch->memory,
            "packing changes it");
  return 0;
}
