#include "monitor/vhost/vhost_peer.h"

#include "devices/virtio/layout.h"
#include "monitor/vhost/vhost_kinds.h"

namespace trapline::monitor::vhost {

namespace {

constexpr u64 kWanted = protocol_feature::multi_queue | protocol_feature::reply_ack | protocol_feature::config;

// What is wrong, or nothing.
std::string meet(Peer& peer, const Needs& needs) {
  Link& link = peer.link;
  const auto features = link.ask(Command::get_features);
  if (!features) return link.why();
  peer.features = *features;
  if (!(peer.features & devices::virtio::feature::version_1)) return "it knows no virtio 1.0";
  if (peer.features & kProtocolFeatures) {
    const auto offered = link.ask(Command::get_protocol_features);
    if (!offered) return link.why();
    peer.protocol_features = *offered & kWanted;
    if (!link.tell(Command::set_protocol_features, peer.protocol_features)) return link.why();
    link.acknowledge(peer.protocol_features & protocol_feature::reply_ack);
  }
  if (!link.tell(Command::set_owner)) return link.why();
  if (peer.protocol_features & protocol_feature::multi_queue) {
    const auto queues = link.ask(Command::get_queue_num);
    if (!queues) return link.why();
    if (*queues == 0) return "it has no queue";
    peer.queues = static_cast<u32>(std::min<u64>(*queues, devices::virtio::kMostQueues));
  }
  if (!needs.config) return {};
  if (!(peer.protocol_features & protocol_feature::config)) return "it does not say how large it is (GET_CONFIG)";
  auto config = link.ask_config(needs.config_bytes);
  if (!config) return link.why();
  peer.config = std::move(*config);
  return {};
}

std::string option_of(VmError::About about) {
  switch (about) {
    case VmError::About::disk_vhost:
      return "--disk vhost-user=";
    case VmError::About::net_vhost:
      return "--net vhost-user,path=";
    default:
      return "--share vhost-user=";
  }
}

}  // namespace

Result<std::unique_ptr<Peer>, VmError> open_peer(const std::string& path, VmError::About about, const Needs& needs) {
  auto socket = connect_to_back_end(path, about);
  if (!socket) return Err{socket.error()};
  auto peer = std::make_unique<Peer>(std::move(*socket));
  if (std::string wrong = meet(*peer, needs); !wrong.empty())
    return Err{VmError{about, VmError::Reason::unfit_back_end, path, 0, 0, std::move(wrong)}};
  peer->what = option_of(about) + path;
  return peer;
}

namespace {

// Disks and networks are the same to a driver whoever serves them; a file system is not: it has a session.
Result<std::unique_ptr<Peer>, VmError> open_lasting(const std::string& path, VmError::About about, const Needs& needs) {
  auto peer = open_peer(path, about, needs);
  if (peer)
    (*peer)->again = [path, about, needs]() -> std::unique_ptr<Peer> {
      auto fresh = open_peer(path, about, needs);
      return fresh ? std::move(*fresh) : nullptr;
    };
  return peer;
}

}  // namespace

Result<std::unique_ptr<Peer>, VmError> open_disk_peer(const machine::DiskConfig& config) {
  return open_lasting(config.path, VmError::About::disk_vhost, {true, kDiskConfig});
}

Result<std::unique_ptr<Peer>, VmError> open_net_peer(const machine::NetConfig& config) {
  return open_lasting(config.path, VmError::About::net_vhost, {});
}

Result<std::unique_ptr<Peer>, VmError> open_share_peer(const machine::Share& share) {
  return open_peer(share.path, VmError::About::share_vhost, {});
}

}  // namespace trapline::monitor::vhost
