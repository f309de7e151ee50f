// --perf-map: /tmp/perf-PID.map of the core process, by which `perf report` names translated code: lines "START SIZE
// NAME" in hexadecimal (Linux, tools/perf/Documentation/jit-interface.txt). Made of the log that the core keeps
// (engine/common/code_names.h), while it runs and when it has ended.
#pragma once

#include <sys/types.h>

#include <deque>
#include <string>

#include "base/types.h"
#include "monitor/files.h"
#include "monitor/symbols.h"

namespace trapline::monitor {

class PerfMap {
 public:
  static Fd create_log();  // for the core to map; errno says why not

  // A core with this pid has begun. Error message, or empty.
  std::string begin(int log, pid_t core);
  // Writes what the core has logged since. Kernel addresses get their names from `symbols`. Error message, or empty.
  std::string update(int log, const Symbols& symbols);
  bool open() const { return static_cast<bool>(file_); }
  const std::string& path() const { return path_; }

 private:
  // A guest may reset without end: of the cores that are gone, so many maps are kept.
  static constexpr std::size_t kKept = 4;

  Fd file_;
  std::string path_;
  std::deque<std::string> earlier_;
  u32 done_ = 0;       // entries of the log
  bool full_ = false;  // said
};

}  // namespace trapline::monitor
