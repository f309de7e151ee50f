// The networks of a configuration, opened: sockets, interfaces, and the processes behind them.
#pragma once

#include <sys/types.h>

#include <memory>
#include <vector>

#include "machine/config.h"
#include "monitor/network/link.h"

namespace trapline::monitor {

// A process that ends with its owner.
class HelperProcess {
 public:
  HelperProcess() = default;
  explicit HelperProcess(pid_t pid) : pid_{pid} {}
  HelperProcess(HelperProcess&& o) noexcept : pid_{std::exchange(o.pid_, -1)} {}
  HelperProcess& operator=(HelperProcess&& o) noexcept {
    std::swap(pid_, o.pid_);
    return *this;
  }
  ~HelperProcess();

 private:
  pid_t pid_ = -1;
};

struct OpenNetwork {
  std::unique_ptr<NetLink> link;
  devices::virtio::Net::Settings settings;
  HelperProcess process;
};

// By the thread that lives as long as the network. Error: one line that names the option and the remedy.
Result<OpenNetwork, std::string> open_network(const machine::NetConfig& config);

}  // namespace trapline::monitor
