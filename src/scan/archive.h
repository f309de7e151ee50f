// ar archives (static libraries): the members and their names. System V format with GNU's and BSD's long names.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "scan/bytes.h"
#include "scan/limits.h"

namespace trapline::scan {

bool is_archive(Bytes bytes);

struct Member {
  std::string name;
  Bytes bytes;
};
// Without symbol and name tables. Error: one line without the file's name.
Result<std::vector<Member>, std::string> archive_members(Bytes bytes, const Limits& limits);

}  // namespace trapline::scan
