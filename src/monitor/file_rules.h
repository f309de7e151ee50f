// What a helper program of the host's may do with files: run, with the libraries of the host's system, and what it is
// given. Landlock sees to that, where the kernel has it; nothing does elsewhere. It holds from before the program's
// first instruction, over its exec.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "monitor/files.h"

namespace trapline::monitor {

class FileRules {
 public:
  struct Grants {
    std::vector<std::string> read, written;  // files; what cannot be opened is left out
    std::vector<std::string> folders = {};   // in which it may make, write and remove files
  };
  // For `program`, a path. Error: errno.
  static Result<FileRules, int> create(const std::string& program, const Grants& grants);
  // Between fork and exec: no memory is asked for. False: it could not be.
  bool apply() const;
  bool any() const { return static_cast<bool>(rules_); }  // there is Landlock

 private:
  Fd rules_;
};

}  // namespace trapline::monitor
