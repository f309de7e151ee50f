// The VMs of this user that run now, by name: a file each in $XDG_RUNTIME_DIR/trapline (without one, in
// /tmp/trapline-UID, which nobody else may write to). The monitor holds a lock on its file while it lives, however it
// ends; a file without one is what a crash has left, and is taken away by whoever sees it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "monitor/files.h"

namespace trapline::monitor {

struct RunningVm {
  std::string name;
  pid_t pid = 0;
  i64 started = 0;   // seconds since 1970
  std::string what;  // a line: its kernel, or the command
};

class Registry {
 public:
  static constexpr const char* kStem = "vm";
  static Result<Registry, VmError> open();

  // Enters this process for as long as the returned descriptor is open. Empty name: the first of STEM1, STEM2, ... that
  // is free (of an image's own name, STEM comes first), which `vm.name` then is. A name that is taken is an error.
  Result<Fd, VmError> enter(RunningVm& vm, const std::string& stem = kStem) const;
  void leave(const std::string& name) const;
  std::vector<RunningVm> all() const;  // by name
  Result<RunningVm, VmError> find(const std::string& name) const;

  // The socket of a detached VM's console, in folder().
  static std::string console_name(const std::string& name) { return "." + name + ".console"; }
  // The socket on which it takes requests (control.h), likewise.
  static std::string control_name(const std::string& name) { return "." + name + ".control"; }
  const Fd& folder() const { return folder_; }

  // Letters, digits, dots, dashes and underscores, 64 at most, no dot first.
  static bool is_name(const std::string& name);

 private:
  Fd try_enter(RunningVm& vm, const std::string& name, bool& taken) const;
  Fd folder_;
};

}  // namespace trapline::monitor
