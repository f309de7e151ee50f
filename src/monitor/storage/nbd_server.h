// A server of a disk's by the NBD protocol, started by the monitor, which has the only connection to it.
#pragma once

#include <string>

#include "channel/nbd.h"
#include "monitor/files.h"
#include "monitor/helper_process.h"

namespace trapline::monitor {

namespace nbd = channel::nbd;

struct NbdServer {
  std::string what;  // the image
  HelperProcess process;
  HelperWords words;
  Fd socket;
  nbd::Export info;
};

}  // namespace trapline::monitor
