// The networks of a configuration, opened: sockets, interfaces, and the processes behind them.
#pragma once

#include <memory>
#include <vector>

#include "machine/config.h"
#include "monitor/helper_process.h"
#include "monitor/network/link.h"
#include "monitor/vhost/vhost_peer.h"

namespace trapline::monitor {

struct OpenNetwork {
  std::unique_ptr<NetLink> link;  // or
  std::unique_ptr<vhost::Peer> peer = {};
  devices::virtio::Net::Settings settings;
  HelperProcess process;
  // passt: what is said when it ends, and its own words.
  std::string what = {};
  HelperWords words = {};
};

// By the thread that lives as long as the network. Error: one line that names the option and the remedy.
Result<OpenNetwork, VmError> open_network(const machine::NetConfig& config);

}  // namespace trapline::monitor
