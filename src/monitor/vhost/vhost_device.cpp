#include "monitor/vhost/vhost_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "base/host_refused.h"
#include "base/trace.h"

namespace trapline::monitor::vhost {

namespace virtio = devices::virtio;
using virtio::Request;

namespace {

// The rings lie behind all RAM that a guest may have. What the protocol calls the user's addresses are the guest's,
// moved: a back end is told no address of ours.
constexpr u64 kRingsAt = u64{1} << 45, kUserAt = u64{1} << 46;
constexpr std::chrono::seconds kDrain{5};
constexpr int kLookAgainMs = 50, kTryAgainMs = 1000;

virtio::Backend::Kind kind_of(const DeviceKind& kind, const Peer& peer) {
  const DeviceKind::Facts& f = kind.facts();
  return {.type = f.type,
          .name = f.name,
          .class_code = f.class_code,
          .features = (peer.features & f.passed) | f.own,
          .queues = f.queues};
}

Fd make_event() { return Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}; }
void ring(const Fd& event) {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(event.get(), &one, sizeof one);
}
void hush(const Fd& event) {
  u64 count = 0;
  [[maybe_unused]] const ssize_t n = ::read(event.get(), &count, sizeof count);
}

}  // namespace

VhostDevice::VhostDevice(std::shared_ptr<Peer> peer, std::unique_ptr<DeviceKind> kind, Complain complain)
    : Backend{kind_of(*kind, *peer)},
      peer_{std::move(peer)},
      kind_{std::move(kind)},
      complain_{std::move(complain)},
      wake_{make_event()},
      rings_{::memfd_create("vhost-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING)} {
  const u64 bytes = kind_->facts().queues.size() * ShadowRing::kBytes;
  void* at = MAP_FAILED;
  if (wake_ && rings_ && ::ftruncate(rings_.get(), static_cast<off_t>(bytes)) == 0)
    at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, rings_.get(), 0);
  if (at == MAP_FAILED)
    throw HostRefused{peer_->what + ": no shared memory: raise the limits of open files and memory (ulimit -n, -v)"};
  ::fcntl(rings_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  memory_ = static_cast<std::byte*>(at);
  for (u64 i = 0; i < kind_->facts().queues.size(); i++) {
    Lane& lane = lanes_.emplace_back(ShadowRing{memory_ + i * ShadowRing::kBytes, kRingsAt + i * ShadowRing::kBytes});
    lane.kick = make_event();
    lane.call = make_event();
    if (!lane.kick || !lane.call)
      throw HostRefused{peer_->what + ": no eventfd: raise the limit of open files (ulimit -n)"};
  }
}

VhostDevice::~VhostDevice() {
  lanes_.clear();
  ::munmap(memory_, kind_->facts().queues.size() * ShadowRing::kBytes);
}

void VhostDevice::read_config(u64 offset, std::span<u8> out) const {
  const std::vector<u8> all = kind_->config(peer_->config, lost_);
  if (offset >= all.size()) return;
  const auto some = std::span{all}.subspan(offset);
  std::copy_n(some.begin(), std::min(some.size(), out.size()), out.begin());
}

void VhostDevice::wake() { ring(wake_); }

VhostDevice::Wanted VhostDevice::wanted() const {
  std::lock_guard guard{wanting_};
  return wanted_;
}

void VhostDevice::want(bool on, u64 features) {
  {
    std::lock_guard guard{wanting_};
    wanted_ = {wanted_.life + 1, on, features};
  }
  wake();
}

void VhostDevice::start(u64 features) { want(true, features); }
void VhostDevice::stop() { want(false, 0); }

void VhostDevice::attach_ram(int fd, u64 bytes) {
  ram_ = Fd{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
  if (!ram_) throw HostRefused{peer_->what + ": no descriptor: raise the limit of open files (ulimit -n)"};
  ram_bytes_ = bytes;
  memory_known_ = false;
}

void VhostDevice::begin() {
  ending_ = false;
  peer_->link.hurry(false);
  hush(wake_);
}

void VhostDevice::end() {
  ending_ = true;
  peer_->link.hurry(true);
  wake();
}

void VhostDevice::run() {
  if (lost_) complain_of_loss();
  while (!ending_) {
    if (peer_->link.open()) follow(wanted());
    if (!peer_->link.open() && !lost_) lose();
    take_all_back();
    const bool alone = lost_ && peer_->again;
    await_events(alone ? kTryAgainMs : -1);
    if (alone && !ending_) rejoin();
  }
  stop_rings();
}

// Whoever listens there now, if it serves the same device: what the guest knows of it stays.
void VhostDevice::rejoin() {
  const std::unique_ptr<Peer> fresh = peer_->again();
  if (!fresh || (peer_->features & ~fresh->features) || fresh->queues < lanes_.size() || fresh->config != peer_->config)
    return;
  peer_->link.adopt(std::move(fresh->link));
  memory_known_ = told_ = false;
  lost_ = false;
  device().config_changed();
  complain_(peer_->what + ": it is back");
}

// Nobody works any more: what the back end has is dropped.
void VhostDevice::settle() {
  want(false, 0);
  running_ = {};
  for (Lane& lane : lanes_) {
    std::lock_guard guard{lane.lock};
    lane.on = false;
    lane.waiting.reset();
    (void)lane.ring.clear();
  }
}

void VhostDevice::await_events(int milliseconds) {
  std::array<pollfd, 2 + virtio::kMostQueues> ready{};
  std::size_t count = 0;
  ready[count++] = {wake_.get(), POLLIN, 0};
  if (peer_->link.open()) {
    ready[count++] = {peer_->link.fd(), POLLIN | POLLRDHUP, 0};
    for (const Lane& lane : lanes_) ready[count++] = {lane.call.get(), POLLIN, 0};
  }
  ::poll(ready.data(), count, milliseconds);
  if (ready[0].revents != 0) hush(wake_);
  for (std::size_t i = 2; i < count; i++)
    if (ready[i].revents != 0) hush(lanes_[i - 2].call);
  if (count > 1 && ready[1].revents != 0) peer_->link.heard_unasked();
}

// Every start and every stop of the driver's is followed, in their order, but for those that nobody could notice.
void VhostDevice::follow(const Wanted& wanted) {
  if (wanted == running_) return;
  if (running_.on) stop_rings();
  running_ = wanted;
  if (wanted.on && peer_->link.open()) start_rings(wanted.features);
}

void VhostDevice::start_rings(u64 features) {
  for (Lane& lane : lanes_) {
    std::lock_guard guard{lane.lock};
    (void)lane.ring.clear();
    lane.ring.restart(peer_->features & features & virtio::feature::indirect_desc);
    hush(lane.kick);
  }
  if (!set_up(features)) return;
  for (unsigned i = 0; i < lanes_.size(); i++) {
    {
      std::lock_guard guard{lanes_[i].lock};
      lanes_[i].on = true;
    }
    pass_on(i);
  }
}

bool VhostDevice::set_up(u64 features) {
  Link& link = peer_->link;
  // What the guest has accepted of what the back end offers; the ring's features are ours.
  const u64 own = virtio::feature::version_1 | virtio::feature::indirect_desc | kProtocolFeatures;
  const u64 accepted = peer_->features & ((features & kind_->facts().passed) | own);
  TRACE(devices, "{} features {:#x}", kind().name, accepted);
  if (!link.tell(Command::set_features, accepted) || !send_memory()) return false;
  for (u32 i = 0; i < lanes_.size(); i++)
    if (!set_up_ring(i)) return false;
  if (peer_->features & kProtocolFeatures)
    for (u32 i = 0; i < lanes_.size(); i++)
      if (!link.tell(Command::set_vring_enable, RingState{i, 1})) return false;
  return true;
}

bool VhostDevice::send_memory() {
  if (memory_known_) return true;
  MemoryTable table;
  std::array<int, MemoryTable::kMost> files{};
  const auto add = [&](u64 at, u64 bytes, const Fd& file, u64 offset) {
    files[table.count] = file.get();
    table.regions[table.count++] = {at, bytes, kUserAt + at, offset};
  };
  const u64 low = std::min(ram_bytes_, kPciHoleStart);
  add(0, low, ram_, 0);
  if (ram_bytes_ > low) add(kPciHoleEnd, ram_bytes_ - low, ram_, low);
  add(kRingsAt, lanes_.size() * ShadowRing::kBytes, rings_, 0);
  const auto bytes = std::as_bytes(std::span{&table, 1});
  memory_known_ = peer_->link.tell(Command::set_mem_table, bytes.first(8 + table.count * sizeof(Region)),
                                   std::span{files}.first(table.count));
  return memory_known_;
}

bool VhostDevice::set_up_ring(u32 index) {
  Link& link = peer_->link;
  const u64 at = kUserAt + kRingsAt + index * ShadowRing::kBytes;
  const int kick[] = {lanes_[index].kick.get()}, call[] = {lanes_[index].call.get()};
  return link.tell(Command::set_vring_num, RingState{index, ShadowRing::kSize}) &&
         link.tell(Command::set_vring_base, RingState{index, 0}) &&
         link.tell(Command::set_vring_addr,
                   RingAddress{index, 0, at, at + ShadowRing::kUsed, at + ShadowRing::kAvailable, 0}) &&
         link.tell(Command::set_vring_call, u64{index}, call) && link.tell(Command::set_vring_kick, u64{index}, kick);
}

// The driver has let go, or the VM ends. What the back end does not give back in time is dropped, once it has said that
// it has stopped, or was cut off.
void VhostDevice::stop_rings() {
  if (!running_.on) return;
  for (Lane& lane : lanes_) {
    std::lock_guard guard{lane.lock};
    lane.on = false;
    lane.waiting.reset();
  }
  if (kind_->facts().drains) drain();
  for (u32 i = 0; i < lanes_.size() && peer_->link.open(); i++) (void)peer_->link.stop_ring(i);
  running_.on = false;
  if (!peer_->link.open() && !lost_) return lose();
  take_all_back();
  for (Lane& lane : lanes_) {
    std::vector<Request> rest;
    std::lock_guard guard{lane.lock};
    rest = lane.ring.clear();
  }
}

u32 VhostDevice::held() const {
  u32 sum = 0;
  for (const Lane& lane : lanes_) sum += lane.ring.in_flight();
  return sum;
}

void VhostDevice::drain() {
  const auto until = std::chrono::steady_clock::now() + kDrain;
  while (peer_->link.open() && !ending_ && held() > 0 && std::chrono::steady_clock::now() < until) {
    await_events(kLookAgainMs);
    take_all_back();
  }
}

// From the guest to the back end.
void VhostDevice::pass_on(unsigned index) {
  Lane& lane = lanes_[index];
  std::lock_guard guard{lane.lock};
  if (!lane.on) {
    if (lost_) fail_all(index);
    return;
  }
  virtio::Queue& from = queue(index);
  bool full = false;
  do {
    from.hush();
    while (!full) {
      auto request = lane.waiting ? std::exchange(lane.waiting, std::nullopt) : from.next();
      if (!request) break;
      if (ShadowRing::never_fits(*request)) {
        from.complete(std::move(*request), 0);
      } else if (!lane.ring.push(*request)) {
        lane.waiting = std::move(request);
        full = true;  // take_back() comes here again
      }
    }
  } while (!full && from.listen());
  if (lane.ring.publish()) ring(lane.kick);
}

// The caller holds the lane's lock.
void VhostDevice::fail_all(unsigned index) {
  if (!kind_->answers(index)) return;
  serve_all(queue(index), [&](Request&& request) {
    const u32 written = kind_->fail(request);
    queue(index).complete(std::move(request), written);
  });
  queue(index).signal();
}

// From the back end to the guest. False: it does not keep to the ring.
bool VhostDevice::take_back(unsigned index) {
  Lane& lane = lanes_[index];
  std::vector<ShadowRing::Used> all;
  ShadowRing::Take took;
  {
    std::lock_guard guard{lane.lock};
    ShadowRing::Used used{};
    while ((took = lane.ring.take(used)) == ShadowRing::Take::used) all.push_back(std::move(used));
  }
  if (all.empty()) return took != ShadowRing::Take::broken;
  queue(index).complete(all);  // at once: a network's frame may have several buffers
  queue(index).signal();
  pass_on(index);
  return took != ShadowRing::Take::broken;
}

void VhostDevice::take_all_back() {
  if (lost_) return;
  for (unsigned i = 0; i < lanes_.size(); i++)
    if (!take_back(i)) peer_->link.close("what it writes into its rings means nothing");
  if (!peer_->link.open()) lose();
}

// There is no back end any more: one line for the user, and errors for the guest.
void VhostDevice::lose() {
  if (lost_.exchange(true)) return;
  running_.on = false;
  for (unsigned i = 0; i < lanes_.size(); i++) {
    Lane& lane = lanes_[i];
    std::lock_guard guard{lane.lock};
    lane.on = false;
    std::vector<Request> all = lane.ring.clear();
    if (lane.waiting) all.push_back(std::move(*std::exchange(lane.waiting, std::nullopt)));
    for (Request& request : all) {
      const u32 written = kind_->answers(i) ? kind_->fail(request) : 0;
      if (kind_->answers(i)) queue(i).complete(std::move(request), written);
    }
    fail_all(i);
  }
  device().config_changed();
  if (!ending_) complain_of_loss();
}

void VhostDevice::complain_of_loss() {
  if (std::exchange(told_, true)) return;
  complain_(peer_->what + ": " + peer_->link.why() + ": the guest gets " + kind_->facts().loss +
            (peer_->again ? " until it is started again" : " from now on; start both again"));
}

}  // namespace trapline::monitor::vhost
