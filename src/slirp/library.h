// libslirp, loaded when it is needed: nobody but the network's process has it in memory, and Trapline starts on hosts
// without it.
#pragma once

#include <slirp/libslirp.h>

#include <string>

#include "base/result.h"

namespace trapline::slirp {

struct Library {
  decltype(&::slirp_new) make;
  decltype(&::slirp_cleanup) cleanup;
  decltype(&::slirp_input) input;
  decltype(&::slirp_pollfds_fill) fill;
  decltype(&::slirp_pollfds_poll) poll;
  decltype(&::slirp_add_hostfwd) add_forward;
  decltype(&::slirp_handle_timer) handle_timer;

  static Result<Library, std::string> load();  // error: what to install
};

}  // namespace trapline::slirp
