// A port of the host's that leads to one of the guest's, as one word: tcp:10.0.0.1:80:10.0.2.15:8080
#pragma once

#include <netinet/in.h>

#include <optional>
#include <string>

#include "base/types.h"

namespace trapline::slirp {

struct Forward {
  bool udp = false;
  in_addr host{}, guest{};
  u16 host_port = 0, guest_port = 0;
};

std::optional<Forward> parse_forward(const std::string& word);

}  // namespace trapline::slirp
