// --net user[,...] | tap,ifname=NAME | socket,path=PATH | vhost-user,path=PATH | none
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "machine/config.h"

namespace trapline::cli {

// Nothing for `none`. `seed`: what tells this VM's interfaces from others'; the same gives the same MAC address.
// Error: one line that names the option and the remedy.
Result<std::optional<machine::NetConfig>, std::string> parse_net(const std::string& text, const std::string& seed);

}  // namespace trapline::cli
