// Do two techniques' guests say the same?
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compare/guest_run.h"

namespace trapline::compare {

// Is this a line that tells of the machine rather than of the workload? A kernel's messages, which begin with its time
// stamp "[    0.123456]", and empty lines.
bool tells_of_machine(std::string_view line);

// The lines of a run that are compared.
std::vector<const Line*> compared_lines(const GuestRun& run);

// Where two runs differ: the first line of those that are compared, from 1, and what each has there (nothing: no more
// lines); or, with the same lines, their exit codes.
struct Difference {
  std::size_t line = 0;  // 0: the exit codes
  std::optional<std::string> first, second;
};
std::optional<Difference> difference(const GuestRun& first, const GuestRun& second);

// "line 3: 'a', but 'b'", printable.
std::string describe(const Difference& d);

}  // namespace trapline::compare
