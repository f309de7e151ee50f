// A vhost-user back end for tests, on a thread of its own: it keeps to the protocol, or lies where a test has it lie. It
// sees guest RAM through the descriptors that it is sent, as any other process would.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "devices/virtio/layout.h"
#include "monitor/vhost/vhost_protocol.h"

namespace trapline::test {

namespace vhost = monitor::vhost;

class VhostBackEnd {
 public:
  using Bytes = std::span<u8>;
  struct Chain {
    std::vector<Bytes> readable, writable;
    std::vector<u8> read() const {
      std::vector<u8> all;
      for (const Bytes& b : readable) all.insert(all.end(), b.begin(), b.end());
      return all;
    }
    u32 write(std::span<const u8> from) const {
      u32 done = 0;
      for (const Bytes& b : writable) {
        const std::size_t n = std::min(b.size(), from.size());
        std::memcpy(b.data(), from.data(), n);
        from = from.subspan(n);
        done += static_cast<u32>(n);
      }
      return done;
    }
  };

  // -- What it says, set before serve().
  u64 features =
      devices::virtio::feature::version_1 | devices::virtio::feature::indirect_desc | vhost::kProtocolFeatures | 1 << 9;
  u64 protocol =
      vhost::protocol_feature::multi_queue | vhost::protocol_feature::reply_ack | vhost::protocol_feature::config;
  u64 queues = 4;
  std::vector<u8> config = std::vector<u8>(60);
  // What a request of this queue writes; nothing: it is kept.
  std::function<std::optional<u32>(unsigned queue, const Chain&)> handle = [](unsigned, const Chain&) { return 0u; };
  // Instead of an answer to this command, these bytes; none of them: silence.
  std::map<vhost::Command, std::vector<u8>> lies;
  // Instead of used elements: the ring's used area, how far it is, and the head that would be given.
  std::function<void(std::byte* used, u16 index, u16 head)> instead_of_giving;

  ~VhostBackEnd() { end(); }
  // One end of a socket pair for the front end.
  int serve() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    run(ends[0]);
    return ends[1];
  }
  // On a socket of this path, for one front end.
  void serve(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << path;
    EXPECT_EQ(::listen(listener, 1), 0);
    thread_ = std::thread{[this, listener] {
      pollfd ready{listener, POLLIN, 0};
      while (!ending_ && ::poll(&ready, 1, 10) == 0) {
      }
      socket_ = ending_ ? -1 : ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      ::close(listener);
      loop();
    }};
  }
  void end() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Takes buffers of a queue that handle() does not see, for what comes unasked. By handle().
  bool give(unsigned queue, std::span<const u8> bytes) {
    Ring& ring = rings_[queue];
    const auto head = next(ring);
    if (!head) return false;
    complete(ring, *head, chain(ring, *head).write(bytes));
    return true;
  }

  std::atomic<u64> acked_features{0};
  std::atomic<unsigned> stops{0}, starts{0}, requests{0};

 private:
  struct Ring {
    u32 size = 0;
    u64 table = 0, available = 0, used = 0;
    u16 seen = 0, given = 0;
    int kick = -1, call = -1;
    bool on = false, enabled = false;
  };
  struct Mapped {
    vhost::Region region;
    std::byte* at;
  };

  void run(int socket) {
    socket_ = socket;
    thread_ = std::thread{[this] { loop(); }};
  }

  void loop() {
    while (!ending_ && socket_ >= 0) {
      std::vector<pollfd> ready{{socket_, POLLIN, 0}};
      std::vector<unsigned> who;
      for (auto& [index, ring] : rings_)
        if (ring.on && ring.kick >= 0) ready.push_back({ring.kick, POLLIN, 0}), who.push_back(index);
      if (::poll(ready.data(), ready.size(), 10) <= 0) continue;
      for (std::size_t i = 1; i < ready.size(); i++)
        if (ready[i].revents != 0) {
          u64 count = 0;
          [[maybe_unused]] const ssize_t n = ::read(ready[i].fd, &count, sizeof count);
          work(who[i - 1]);
        }
      if (ready[0].revents != 0 && !take_message()) break;
    }
    if (socket_ >= 0) ::close(socket_);
    for (auto& [index, ring] : rings_) drop(ring.kick), drop(ring.call);
    forget_memory();
  }
  static void drop(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  void forget_memory() {
    for (const Mapped& m : memory_) ::munmap(m.at, m.region.bytes);
    memory_.clear();
  }

  bool take_message() {
    vhost::Header header{};
    std::vector<u8> payload;
    iovec part{&header, sizeof header};
    alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(socket_, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof header) return false;
    std::vector<int> files;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      files.resize((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      std::memcpy(files.data(), CMSG_DATA(c), files.size() * sizeof(int));
    }
    payload.resize(header.bytes);
    if (header.bytes != 0 && ::recv(socket_, payload.data(), header.bytes, MSG_WAITALL) != header.bytes) return false;
    return obey(static_cast<vhost::Command>(header.command), payload, files, header.flags & vhost::kNeedReply);
  }

  template <class T>
  static T as(const std::vector<u8>& bytes) {
    T value{};
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), std::min(sizeof value, bytes.size()));
    return value;
  }
  void say(const void* bytes, std::size_t size) {
    [[maybe_unused]] const ssize_t n = ::send(socket_, bytes, size, MSG_NOSIGNAL);
  }
  void answer(vhost::Command command, std::span<const u8> payload) {
    if (const auto lie = lies.find(command); lie != lies.end()) return say(lie->second.data(), lie->second.size());
    const vhost::Header header{static_cast<u32>(command), vhost::kVersion | vhost::kReply,
                               static_cast<u32>(payload.size())};
    say(&header, sizeof header);
    say(payload.data(), payload.size());
  }
  template <class T>
  void answer(vhost::Command command, const T& value) {
    std::vector<u8> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    answer(command, std::span<const u8>{bytes});
  }

  bool obey(vhost::Command command, const std::vector<u8>& payload, std::vector<int>& files, bool wants_reply) {
    using vhost::Command;
    const auto state = as<vhost::RingState>(payload);
    switch (command) {
      case Command::get_features:
        return answer(command, features), true;
      case Command::get_protocol_features:
        return answer(command, protocol), true;
      case Command::get_queue_num:
        return answer(command, queues), true;
      case Command::get_config: {
        std::vector<u8> bytes = payload;
        std::memcpy(bytes.data() + sizeof(vhost::ConfigHeader), config.data(),
                    std::min(config.size(), bytes.size() - sizeof(vhost::ConfigHeader)));
        return answer(command, std::span<const u8>{bytes}), true;
      }
      case Command::get_vring_base: {
        Ring& ring = rings_[state.index];
        ring.on = false;
        drop(ring.kick);
        drop(ring.call);
        stops++;
        return answer(command, vhost::RingState{state.index, ring.seen}), true;
      }
      case Command::set_features:
        acked_features = as<u64>(payload);
        break;
      case Command::set_mem_table:
        map(as<vhost::MemoryTable>(payload), files);
        break;
      case Command::set_vring_num:
        rings_[state.index].size = state.number;
        break;
      case Command::set_vring_base:
        rings_[state.index].seen = rings_[state.index].given = static_cast<u16>(state.number);
        break;
      case Command::set_vring_addr: {
        const auto a = as<vhost::RingAddress>(payload);
        Ring& ring = rings_[a.index];
        ring.table = a.descriptors, ring.used = a.used, ring.available = a.available;
        break;
      }
      case Command::set_vring_kick:
        rings_[as<u64>(payload) & 0xff].kick = files.at(0);
        rings_[as<u64>(payload) & 0xff].on = true;
        starts++;
        break;
      case Command::set_vring_call:
        rings_[as<u64>(payload) & 0xff].call = files.at(0);
        break;
      case Command::set_vring_enable:
        rings_[state.index].enabled = state.number != 0;
        break;
      default:
        break;
    }
    if (wants_reply) answer(command, u64{0});
    return true;
  }

  void map(const vhost::MemoryTable& table, std::vector<int>& files) {
    forget_memory();
    for (u32 i = 0; i < table.count; i++) {
      const vhost::Region& r = table.regions[i];
      void* at =
          ::mmap(nullptr, r.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, files.at(i), static_cast<off_t>(r.file_offset));
      EXPECT_NE(at, MAP_FAILED);
      memory_.push_back({r, static_cast<std::byte*>(at)});
      ::close(files[i]);
    }
  }

  std::byte* find(u64 address, u64 bytes, bool user) const {
    for (const Mapped& m : memory_) {
      const u64 first = user ? m.region.user_address : m.region.guest_address;
      if (address >= first && address - first <= m.region.bytes && bytes <= m.region.bytes - (address - first))
        return m.at + (address - first);
    }
    ADD_FAILURE() << "no memory at " << address;
    return nullptr;
  }

  std::optional<u16> next(Ring& ring) {
    const std::byte* available = find(ring.available, 4 + 2 * u64{ring.size}, true);
    u16 index = 0, head = 0;
    __atomic_load(reinterpret_cast<const u16*>(available + 2), &index, __ATOMIC_ACQUIRE);
    if (index == ring.seen) return std::nullopt;
    std::memcpy(&head, available + 4 + 2 * (ring.seen++ % ring.size), sizeof head);
    return head;
  }

  Chain chain(const Ring& ring, u16 head) const {
    Chain all;
    const std::byte* table = find(ring.table, 16 * u64{ring.size}, true);
    devices::virtio::Descriptor d;
    std::memcpy(&d, table + 16 * head, sizeof d);
    if (d.flags & devices::virtio::descriptor_flag::indirect) {
      table = find(d.address.raw, d.length, false);
      std::memcpy(&d, table, sizeof d);
    }
    for (;;) {
      const Bytes bytes{reinterpret_cast<u8*>(find(d.address.raw, d.length, false)), d.length};
      (d.flags & devices::virtio::descriptor_flag::write ? all.writable : all.readable).push_back(bytes);
      if (!(d.flags & devices::virtio::descriptor_flag::next)) return all;
      std::memcpy(&d, table + 16 * d.next, sizeof d);
    }
  }

  void complete(Ring& ring, u16 head, u32 written) {
    std::byte* used = find(ring.used, 4 + 8 * u64{ring.size}, true);
    if (instead_of_giving) {
      instead_of_giving(used, ring.given, head);
    } else {
      const devices::virtio::UsedElement element{head, written};
      std::memcpy(used + 4 + 8 * (ring.given % ring.size), &element, sizeof element);
      const u16 given = ++ring.given;
      __atomic_store(reinterpret_cast<u16*>(used + 2), &given, __ATOMIC_RELEASE);
    }
    const u64 one = 1;
    [[maybe_unused]] const ssize_t n = ::write(ring.call, &one, sizeof one);
  }

  void work(unsigned queue) {
    Ring& ring = rings_[queue];
    if (receives(queue)) return;
    while (const auto head = next(ring)) {
      requests++;
      if (const auto written = handle(queue, chain(ring, *head))) complete(ring, *head, *written);
    }
  }
  bool receives(unsigned queue) const { return network && queue % 2 == 0; }

 public:
  bool network = false;  // queues of even numbers are for what comes unasked

 private:
  int socket_ = -1;
  std::atomic<bool> ending_{false};
  std::map<unsigned, Ring> rings_;
  std::vector<Mapped> memory_;
  std::thread thread_;
};

}  // namespace trapline::test
