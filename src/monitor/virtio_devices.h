// The VM's virtio devices in the monitor: made from the configuration, each served by a thread of its own, which waits
// for its doorbell (channel/doorbell.h). Under --clock instructions there are no such threads: a device does its work
// inside the access that rings it, so that runs repeat.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "channel/channel.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/device.h"
#include "devices/virtio/ninep.h"
#include "machine/config.h"
#include "monitor/command_session.h"
#include "monitor/guest_dma.h"
#include "monitor/network/networks.h"
#include "monitor/share_process.h"
#include "monitor/storage/file_disk.h"
#include "monitor/vhost/vhost_device.h"
#include "monitor/vsock/vsock_sockets.h"

namespace trapline::monitor {

struct MachineState;

// What the devices work with and somebody else has made; it outlives them.
struct Attachments {
  // As Config::shares, one of the two.
  std::vector<std::unique_ptr<ShareProcess>> shares;
  std::vector<std::shared_ptr<vhost::Peer>> share_peers;
  std::unique_ptr<CommandSession> command;                                       // trapline exec
  std::unique_ptr<VsockSockets> vsock;                                           // --vsock
  std::function<void(const std::string&)> complain = [](const std::string&) {};  // a line for the user; any thread
  std::function<void(const std::string&)> report = [](const std::string&) {};    // lines that the user asked for
};
inline const Attachments kNoAttachments;

class VirtioDevices final : public devices::virtio::Host {
 public:
  // `disks`, `networks`: opened, in the order of the configuration.
  VirtioDevices(const machine::Config& config, std::vector<OpenDisk> disks, std::vector<OpenNetwork> networks,
                MachineState& machine, const Attachments& attachments);

  std::span<devices::virtio::Device* const> devices() const { return pointers_; }
  bool any() const { return !devices_.empty(); }
  GuestDma& dma() { return dma_; }
  // Of a new core: the file, where somebody else gets it.
  void attach_ram(int fd, u64 bytes);
  devices::virtio::Balloon* balloon() const { return balloon_; }  // null: none

  // A worker: what it runs until close(), and the system calls that its filter allows beside the common ones.
  struct Worker {
    std::function<void()> body;
    std::vector<int> calls;
  };
  // For a core that starts. None under --clock instructions.
  std::vector<Worker> workers();
  // What the threads that serve vCPUs need beside the common calls: under --clock instructions they do the work.
  std::vector<int> service_calls() const;
  // The workers end; once their threads are joined, settle() waits for what is still in flight.
  void close();
  void settle();

  void interrupt(devices::virtio::Device& device, unsigned queue) override;
  void rung(devices::virtio::Device& device, unsigned queue) override;

 private:
  void add(std::unique_ptr<devices::virtio::Backend> backend, std::vector<int> calls);
  void add_vhost(std::shared_ptr<vhost::Peer> peer, std::unique_ptr<vhost::DeviceKind> kind);
  void add_share(const std::string& tag, ShareProcess& process);
  void run(std::size_t index);
  void complain_of_end(const OpenNetwork& network) const;

  struct Entry {
    std::unique_ptr<devices::virtio::Device> device;
    std::vector<int> calls;
  };
  MachineState& machine_;
  const Attachments& attachments_;
  GuestDma dma_;
  std::vector<Entry> devices_;
  std::vector<devices::virtio::Device*> pointers_;
  std::vector<FileDisk*> disks_;  // their devices own them
  std::vector<vhost::VhostDevice*> vhost_;
  std::vector<devices::virtio::NineP*> shares_;
  devices::virtio::Balloon* balloon_ = nullptr;
  struct Network {
    std::unique_ptr<OpenNetwork> open;
    devices::virtio::Net* device;
  };
  std::vector<Network> networks_;
  std::atomic<bool> closing_{false};
};

}  // namespace trapline::monitor
