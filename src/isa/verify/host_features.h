// Which of the features that the table depends on this host has: by CPUID, by the kernel's own answers, and, where
// neither tells, by running the instruction in a child.
#pragma once

#include <string>

#include "isa/table.h"

namespace trapline::isa::verify {

// Probed once per process: some children are forked.
const HostFeatures& host_features();

// "GenuineIntel, Intel(R) Xeon(R) Processor; under KVMKVMKVM; Linux 6.1.0"
std::string host_name();

// One line about a feature, for people.
std::string_view about(Feature f);

}  // namespace trapline::isa::verify
