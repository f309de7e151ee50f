// Everything that the configuration names is opened, once, before the first power-on.
#include <fmt/format.h>
#include <unistd.h>

#include "base/trace.h"
#include "channel/trace_sink.h"
#include "monitor/vm_run.h"

namespace trapline::monitor {

namespace {

// For the list of VMs: what is booted.
std::string what_runs(const machine::Config& c) {
  if (!c.what.empty()) return c.what;
  if (c.firmware.empty()) return c.kernel;
  if (!c.cdrom.empty()) return c.cdrom;
  return c.disks.empty() ? c.firmware : c.disks.front().path;
}

}  // namespace

// Up to a machine that can be powered on.
Result<void, VmError> VmRun::open() {
  auto images = Images::open(config_);
  if (!images) return Err{images.error()};
  images_ = std::move(*images);
  if (auto listening = open_debugger(); !listening) return listening;
  std::vector<OpenDisk> disks;
  std::vector<OpenNetwork> networks;
  BoardParts board{std::move(images_.vga_bios), nullptr};
  if (auto opened = open_storage(&disks, &board); !opened) return opened;
  if (auto opened = open_networks(&networks); !opened) return opened;
  trace::mask = config_.trace_mask;
  if (images_.trace) channel::open_trace(images_.trace.get(), hurry_.fd());
  if (auto entered = enter_registry(); !entered) return entered;
  if (auto started = start_attachments(); !started) return started;
  machine_ = std::make_unique<MachineState>(config_, console_fd(), ::isatty(STDIN_FILENO) != 0, end_, hurry_,
                                            std::move(disks), std::move(networks), attachments_, std::move(board));
  return {};
}

Result<void, VmError> VmRun::open_debugger() {
  if (!config_.debugged()) return {};
  const bool path = !config_.gdb_socket.empty();
  const std::string where = path ? config_.gdb_socket : fmt::format("localhost:{}", config_.gdb_port);
  auto listener = path ? gdb::listen_on_path(config_.gdb_socket) : gdb::listen_on_loopback(config_.gdb_port);
  if (!listener) return Err{listener.error()};
  gdb_listener_ = std::move(*listener);
  if (config_.gdb_wait) complain(fmt::format("waiting for a debugger: target remote {}", where));
  return {};
}

Result<void, VmError> VmRun::open_storage(std::vector<OpenDisk>* disks, BoardParts* board) {
  for (const machine::DiskConfig& disk : config_.disks) {
    auto opened = open_disk(disk);
    if (!opened) return Err{opened.error()};
    disks->push_back(std::move(*opened));
  }
  if (config_.cdrom.empty()) return {};
  auto opened = CdFile::open(config_.cdrom);
  if (!opened) return Err{opened.error()};
  board->cd = std::move(*opened);
  return {};
}

Result<void, VmError> VmRun::open_networks(std::vector<OpenNetwork>* networks) {
  for (const machine::NetConfig& network : config_.networks) {
    auto opened = open_network(network);
    if (!opened) return Err{opened.error()};
    networks->push_back(std::move(*opened));
  }
  return {};
}

// A VM without a name of its own does without, where there is no place for names.
Result<void, VmError> VmRun::enter_registry() {
  const auto without = [this](const VmError& why) -> Result<void, VmError> {
    if (config_.name.empty()) return {};
    return Err{why};
  };
  auto registry = Registry::open();
  if (!registry) return without(registry.error());
  RunningVm vm{.name = config_.name, .what = what_runs(config_)};
  auto held = registry->enter(vm, config_.stem);
  if (!held) return without(held.error());
  registry_ = std::move(*registry);
  entry_ = std::move(*held);
  name_ = vm.name;
  return {};
}

// The processes and sockets beside the machine.
Result<void, VmError> VmRun::start_attachments() {
  for (const machine::Share& share : config_.shares) {
    attachments_.shares.emplace_back();
    attachments_.share_peers.emplace_back();
    if (share.vhost_user) {
      auto peer = vhost::open_share_peer(share);
      if (!peer) return Err{peer.error()};
      attachments_.share_peers.back() = std::move(*peer);
      continue;
    }
    attachments_.shares.back() = std::make_unique<ShareProcess>();
    if (auto started = attachments_.shares.back()->start(share.path, share.readonly); !started) return started;
  }
  attachments_.complain = [this](const std::string& text) { complain(text); };
  attachments_.report = [this](const std::string& text) { speaker_.report(text, hurry_.fd()); };
  if (config_.command.wanted) attachments_.command = std::make_unique<CommandSession>(end_, hurry_);
  if (config_.vsock.cid == 0) return {};
  auto vsock = VsockSockets::create(config_.vsock);
  if (!vsock) return Err{vsock.error()};
  attachments_.vsock = std::move(*vsock);
  return {};
}

Result<void, VmError> VmRun::shares_ready() {
  for (const auto& share : attachments_.shares)
    if (share)
      if (auto ready = share->await_ready(); !ready) return ready;
  return {};
}

// Where the guest's first serial port goes.
int VmRun::console_fd() const {
  if (!config_.command.wanted) return STDOUT_FILENO;
  return config_.command.verbose ? STDERR_FILENO : -1;
}

}  // namespace trapline::monitor
