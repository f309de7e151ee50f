// Why a VM could not be started: what was wrong, so that whoever has asked for it can tell the cases apart.
#pragma once

#include <string>

#include "base/types.h"
#include "channel/exit_codes.h"

namespace trapline::monitor {

struct VmError {
  enum class Kind : u8 {
    // `value` is of the configuration
    image,     // the kernel; `why` names another file where it is that
    debugger,  // --gdb: the port or the path
    disk,      // --disk: the path
    network,   // --net: its path, or empty
    cdrom,     // --cdrom: the path
    name,      // --name
    share,     // --share: the folder
    vsock,     // --vsock: the path
    memory,    // --memory, in bytes
    append,    // --append and the modules' arguments together, in bytes
    // the host's
    channel,
    core,
  };
  Kind kind;
  std::string value;
  std::string why;  // one line for the user, with the value and a remedy

  ExitCode code() const {
    return kind == Kind::memory || kind == Kind::append || kind == Kind::channel || kind == Kind::core
               ? ExitCode::host_refused
               : ExitCode::bad_input;
  }
};

}  // namespace trapline::monitor
