// A vhost-user back end that was found to be of use: connected, its features known, and nothing of the VM shown to it
// yet.
#pragma once

#include <functional>

#include <memory>

#include "machine/config.h"
#include "monitor/vhost/vhost_link.h"

namespace trapline::monitor::vhost {

struct Peer {
  explicit Peer(Fd socket) : link{std::move(socket)} {}
  std::string what;  // for the user: option and path
  Link link;
  u64 features = 0;           // virtio's, and kProtocolFeatures
  u64 protocol_features = 0;  // that both sides know
  u32 queues = 1;             // it has at most
  std::vector<u8> config;     // as it gives it; empty: it was not asked
  // Meets whoever listens there now. Empty: a back end that has ended is gone for good. Waits, but not for ever.
  std::function<std::unique_ptr<Peer>()> again = {};
};

// What a kind of device cannot do without.
struct Needs {
  bool config = false;
  u32 config_bytes = 0;
};

// `path`: a socket. Waits, but not for ever. Error: one line that names option, socket and remedy.
Result<std::unique_ptr<Peer>, VmError> open_peer(const std::string& path, VmError::About about, const Needs& needs);

Result<std::unique_ptr<Peer>, VmError> open_disk_peer(const machine::DiskConfig& config);
Result<std::unique_ptr<Peer>, VmError> open_net_peer(const machine::NetConfig& config);
Result<std::unique_ptr<Peer>, VmError> open_share_peer(const machine::Share& share);

}  // namespace trapline::monitor::vhost
