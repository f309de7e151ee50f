// The text of --stats.
#pragma once

#include <string>
#include <vector>

#include "core/channel.h"

namespace trapline::monitor {

std::string stats_text(const std::vector<core::VcpuStats>& vcpus, double seconds);

}  // namespace trapline::monitor
