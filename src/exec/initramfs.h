// What the VM of `trapline exec` starts from: an archive with the init, modules, and what the init is to do
// (agent/protocol.h).
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "exec/modules.h"

namespace trapline::exec {

struct Mount {
  std::string tag, path;
  bool readonly = false;
};

struct Task {
  std::string root;       // the tag of the share that becomes /
  std::string root_disk;  // or the device
  std::string network;    // for eth0: agent/protocol.h; empty: none
  std::vector<Mount> shares;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  mode_t umask = 022;
  std::string directory;
  struct Terminal {
    u16 rows, columns;
  };
  std::optional<Terminal> terminal;
  std::vector<std::string> environment, arguments;
};

// Into the empty file `fd`. None of the strings holds a zero byte. False: errno says why.
bool write_initramfs(int fd, const Task& task, std::span<const Module> modules);

}  // namespace trapline::exec
