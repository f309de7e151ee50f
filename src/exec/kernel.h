// Which kernel a VM for a command gets, and its modules.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "exec/modules.h"

namespace trapline::exec {

struct Kernel {
  std::string path;
  std::vector<Module> modules;  // what exec needs, in order
};

// What the VM has beside its folders and the command's streams.
struct Needs {
  bool network = false, disks = false;
};

// Of `named` (--kernel; empty: the host's own where it can be read and has what is needed, else Debian's, as
// scripts/guest-kernel.sh brings it). Modules are looked for beside it (modules/lib/modules/VERSION, as that script lays
// them out) and in /lib/modules/VERSION; `modules` (--modules) says where else. An error is one line with the remedy.
Result<Kernel, std::string> find_kernel(const std::string& named, const std::string& modules, const Needs& needs);

// A Linux kernel for a guest that needs no modules: the first that can be read of this host's own and those that were
// fetched, in find_kernel's order. An error is one line with the remedy.
Result<std::string, std::string> any_kernel();

// "6.1.0-50-amd64" of a bzImage (Linux, Documentation/arch/x86/boot.rst, kernel_version); empty: it is none.
std::string version_of(const std::string& path);

}  // namespace trapline::exec
