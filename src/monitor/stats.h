// The text of --stats.
#pragma once

#include <string>
#include <vector>

#include "channel/channel.h"

namespace trapline::monitor {

std::string stats_text(const std::vector<channel::VcpuStats>& vcpus, double seconds);

}  // namespace trapline::monitor
