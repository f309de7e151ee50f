// What each row's example is given to run on: operands that make its effect visible and harmless.
#pragma once

#include <optional>
#include <string_view>

#include "isa/table.h"
#include "isa/verify/run.h"

namespace trapline::isa::verify {

// The row's example in that mode, with its operands; nothing where the row has no example there.
std::optional<Stage> stage_for(const Row& row, CodeSize size);

// Why the row is not run at all on such a host; empty: it is.
std::string_view not_to_be_run(const Row& row, HostFeatures host);

}  // namespace trapline::isa::verify
