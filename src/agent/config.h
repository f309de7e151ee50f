// What the init is told to do: protocol.h has the format.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/types.h"

namespace trapline::agent {

// A share and where it goes. Pointers are into the file's text, which is never freed.
struct Mount {
  char* tag;
  char* path;
  bool readonly;
};

struct Config {
  std::vector<char*> modules;
  char *root = nullptr, *root_disk = nullptr;  // one of them
  struct Network {
    const char *address = nullptr, *mask = nullptr, *gateway = nullptr, *dns = nullptr;  // null: none
  } network;
  std::vector<Mount> shares;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  mode_t umask = 022;
  char* directory = nullptr;
  bool terminal = false;
  u16 rows = 0, columns = 0;
  std::vector<char*> environment, arguments;  // ended by null pointers
};

// Ends with fail() when there is none.
Config read_config();

}  // namespace trapline::agent
