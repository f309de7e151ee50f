#include "monitor/virtio_devices.h"

#include <sys/random.h>
#include <sys/syscall.h>

#include <algorithm>

#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/ninep.h"
#include "devices/virtio/rng.h"
#include "monitor/machine_state.h"

namespace trapline::monitor {

namespace virtio = devices::virtio;

namespace {

constexpr u32 kMostDiskQueues = 8;

std::size_t host_random(std::span<std::byte> out) {
  const ssize_t n = ::getrandom(out.data(), out.size(), GRND_NONBLOCK);
  return n < 0 ? 0 : static_cast<std::size_t>(n);
}

// --clock instructions: the same numbers in each run. splitmix64.
virtio::Rng::Source repeated_random() {
  return [state = u64{0}](std::span<std::byte> out) mutable {
    for (std::byte& byte : out) {
      u64 z = state += 0x9e3779b97f4a7c15;
      z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
      z = (z ^ z >> 27) * 0x94d049bb133111eb;
      byte = static_cast<std::byte>(z ^ z >> 31);
    }
    return out.size();
  };
}

}  // namespace

VirtioDevices::VirtioDevices(const machine::Config& config, std::vector<OpenDisk> disks,
                             std::vector<OpenNetwork> networks, MachineState& machine, const Attachments& attachments)
    : machine_{machine}, attachments_{attachments} {
  const DiskMode mode = machine.deterministic ? DiskMode::at_once : DiskMode::asynchronous;
  for (OpenDisk& open : disks) {
    if (open.peer) {
      const u32 queues = std::min({config.cpus, kMostDiskQueues, open.peer->queues});
      add_vhost(std::move(open.peer), vhost::disk_kind(queues));
      continue;
    }
    auto disk = make_file_disk(std::move(open), mode, attachments.complain);
    disks_.push_back(disk.get());
    const auto calls = disk->calls();
    add(std::make_unique<virtio::Blk>(std::move(disk), std::min(config.cpus, kMostDiskQueues)), calls);
  }
  for (OpenNetwork& opened : networks) {
    if (opened.peer) {
      add_vhost(std::move(opened.peer), vhost::net_kind(opened.settings));
      continue;
    }
    auto open = std::make_unique<OpenNetwork>(std::move(opened));
    NetLink* link = open->link.get();
    auto net = std::make_unique<virtio::Net>(open->settings, *link, [link] { link->retry(); });
    networks_.push_back({std::move(open), net.get()});
    add(std::move(net), NetLink::calls());
  }
  if (config.rng)
    add(std::make_unique<virtio::Rng>(machine.deterministic ? repeated_random() : host_random), {SYS_getrandom});
  if (config.balloon) {
    auto balloon = std::make_unique<virtio::Balloon>(dma_);
    balloon->set_first_target(config.balloon_bytes);
    balloon_ = balloon.get();
    add(std::move(balloon), {});
  }
  if (attachments.vsock) {
    auto vsock = std::make_unique<virtio::Vsock>(attachments.vsock->cid(), *attachments.vsock);
    attachments.vsock->attach([device = vsock.get()](virtio::VsockPacket& packet) { return device->send(packet); });
    add(std::move(vsock), {});
  }
  if (attachments.command) {
    auto console =
        std::make_unique<virtio::Console>(std::vector<virtio::Console::Port>{{agent::kPortName, *attachments.command}});
    attachments.command->attach(*console);
    add(std::move(console), {});
  }
  for (std::size_t i = 0; i < attachments.shares.size(); i++) {
    const std::string& tag = config.shares[i].tag;
    if (attachments.shares[i])
      add_share(tag, *attachments.shares[i]);
    else
      add_vhost(attachments.share_peers[i], vhost::share_kind(tag));
  }
}

void VirtioDevices::add_vhost(std::shared_ptr<vhost::Peer> peer, std::unique_ptr<vhost::DeviceKind> kind) {
  auto device = std::make_unique<vhost::VhostDevice>(std::move(peer), std::move(kind), attachments_.complain);
  vhost_.push_back(device.get());
  add(std::move(device), {});
}

void VirtioDevices::add_share(const std::string& tag, ShareProcess& process) {
  auto device = std::make_unique<virtio::NineP>(tag, process, machine_.deterministic);
  shares_.push_back(device.get());
  add(std::move(device), {});
}

void VirtioDevices::attach_ram(int fd, u64 bytes) {
  for (vhost::VhostDevice* device : vhost_) device->attach_ram(fd, bytes);
}

void VirtioDevices::add(std::unique_ptr<virtio::Backend> backend, std::vector<int> calls) {
  devices_.push_back({std::make_unique<virtio::Device>(std::move(backend), dma_, *this), std::move(calls)});
  pointers_.push_back(devices_.back().device.get());
}

std::vector<VirtioDevices::Worker> VirtioDevices::workers() {
  closing_ = false;
  for (const auto& share : attachments_.shares)
    if (share) share->let_go(false);
  std::vector<Worker> all;
  if (machine_.deterministic) return all;
  for (std::size_t i = 0; i < devices_.size(); i++) all.push_back({[this, i] { run(i); }, devices_[i].calls});
  for (FileDisk* disk : disks_)
    for (auto& body : disk->threads()) all.push_back({std::move(body), disk->calls()});
  for (virtio::NineP* share : shares_) {
    share->close(false);
    all.push_back({[share] { share->collect(); }, {}});
  }
  for (vhost::VhostDevice* device : vhost_) {
    device->begin();
    all.push_back({[device] { device->run(); }, vhost::VhostDevice::calls()});
  }
  if (VsockSockets* vsock = attachments_.vsock.get()) {
    vsock->start();
    all.push_back({[vsock] { vsock->run(); }, VsockSockets::calls()});
  }
  for (const Network& n : networks_) {
    NetLink* link = n.open->link.get();
    link->start();
    all.push_back({[this, link, net = n.device, open = n.open.get()] {
                     link->receive([net](std::span<const NetLink::Frame> frames) { return net->deliver(frames); },
                                   [this, net, open] {
                                     net->set_link(false);
                                     if (!open->what.empty()) complain_of_end(*open);
                                   });
                   },
                   NetLink::calls()});
  }
  return all;
}

std::vector<int> VirtioDevices::service_calls() const {
  std::vector<int> all;
  if (machine_.deterministic)
    for (const Entry& e : devices_) all.insert(all.end(), e.calls.begin(), e.calls.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void VirtioDevices::run(std::size_t index) {
  const virtio::Device& device = *devices_[index].device;
  channel::Doorbell& bell = machine_.channel.vm().doorbells[index];
  while (!closing_) {
    const u64 queues = bell.take([this] { return closing_.load(); });
    for (unsigned q = 0; q < device.queues(); q++)
      if (queues >> q & 1) device.backend().serve(q);
  }
}

void VirtioDevices::close() {
  closing_ = true;
  for (const auto& share : attachments_.shares)
    if (share) share->let_go(true);
  for (virtio::NineP* share : shares_) share->close(true);
  dma_.abandon();
  for (FileDisk* disk : disks_) disk->stop();
  for (vhost::VhostDevice* device : vhost_) device->end();
  if (attachments_.vsock) attachments_.vsock->stop();
  for (const Network& n : networks_) n.open->link->stop();
  if (machine_.channel.vcpus() == 0) return;
  for (std::size_t i = 0; i < devices_.size(); i++) machine_.channel.vm().doorbells[i].wake();
}

void VirtioDevices::complain_of_end(const OpenNetwork& network) const {
  const std::string words = network.words.last_line();
  attachments_.complain(network.what + ": it has ended" + (words.empty() ? "" : ": " + words) +
                        ": the guest's link is down from now on");
}

void VirtioDevices::settle() {
  for (const Entry& e : devices_) e.device->backend().settle();
}

void VirtioDevices::interrupt(virtio::Device& device, unsigned queue) {
  const auto send = [&] {
    queue == kConfig ? device.transport().config_changed() : device.transport().interrupt(queue);
  };
  if (machine_.deterministic) return send();  // inside the access: the lock is held, and publish() follows
  std::lock_guard guard{machine_.lock};
  send();
  machine_.publish();
}

void VirtioDevices::rung(virtio::Device& device, unsigned queue) {
  if (machine_.deterministic) return device.backend().serve(queue);
  for (std::size_t i = 0; i < devices_.size(); i++)
    if (pointers_[i] == &device) machine_.channel.vm().doorbells[i].ring(queue);
}

}  // namespace trapline::monitor
