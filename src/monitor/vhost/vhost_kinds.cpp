#include "monitor/vhost/vhost_kinds.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace trapline::monitor::vhost {

namespace {

using devices::virtio::Request;

constexpr u64 bits(std::initializer_list<unsigned> list) {
  u64 all = 0;
  for (const unsigned bit : list) all |= u64{1} << bit;
  return all;
}

constexpr u16 kQueueSize = 256;

// VIRTIO 1.2, 5.2.
class Disk final : public DeviceKind {
 public:
  explicit Disk(unsigned queues)
      : DeviceKind{{.type = 2,
                    .name = "vhost-user-blk",
                    .class_code = 0x010000,
                    // Sizes, geometry, read-only, flush, topology, several queues, discard, write-zeroes.
                    .passed = bits({1, 2, 4, 5, 6, 9, 10, 12, 13, 14}),
                    .own = 0,
                    .queues = std::vector<u16>(queues, kQueueSize),
                    .drains = true,
                    .loss = "I/O errors"}} {}

  std::vector<u8> config(const std::vector<u8>& from_peer, bool) const override {
    std::vector<u8> all = from_peer;
    all.resize(kDiskConfig);
    const u16 queues = static_cast<u16>(facts().queues.size());
    std::memcpy(&all[kQueues], &queues, sizeof queues);
    return all;
  }
  bool answers(unsigned) const override { return true; }
  // The status is the last byte.
  u32 fail(Request& request) const override {
    constexpr u8 kIoError = 1;
    if (request.writable_bytes() == 0) return 0;
    request.write(request.writable_bytes() - 1, kIoError);
    return 1;
  }

 private:
  static constexpr std::size_t kQueues = 34;
};

// 5.1. Offloads are the back end's: the guest's headers reach it as they are.
class NetCard final : public DeviceKind {
 public:
  explicit NetCard(const devices::virtio::Net::Settings& settings)
      : DeviceKind{{.type = 1,
                    .name = "vhost-user-net",
                    .class_code = 0x020000,
                    // Checksums, segmentation both ways, mergeable buffers.
                    .passed = bits({0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15}),
                    .own = bits({3, 5, 16}),  // MTU, MAC, status
                    .queues = {kQueueSize, kQueueSize},
                    .drains = false,
                    .loss = "a link that is down"}},
        settings_{settings} {}

  std::vector<u8> config(const std::vector<u8>&, bool lost) const override {
    struct {
      devices::virtio::MacAddress mac;
      u16 status, pairs, mtu;
    } const c{settings_.mac, static_cast<u16>(lost ? 0 : 1), 1, settings_.mtu};
    std::vector<u8> all(sizeof c);
    std::memcpy(all.data(), &c, sizeof c);
    return all;
  }
  bool answers(unsigned queue) const override { return queue == kTransmit; }
  u32 fail(Request&) const override { return 0; }

 private:
  static constexpr unsigned kTransmit = 1;
  const devices::virtio::Net::Settings settings_;
};

// 5.11: a queue for what must not wait, and one for requests; messages of FUSE.
class Share final : public DeviceKind {
 public:
  explicit Share(const std::string& tag)
      : DeviceKind{{.type = 26,
                    .name = "vhost-user-fs",
                    .class_code = 0x018000,
                    .passed = 0,
                    .own = 0,
                    .queues = {kQueueSize, kQueueSize},
                    .drains = true,
                    .loss = "I/O errors"}} {
    std::memcpy(config_.tag.data(), tag.data(), std::min(tag.size(), config_.tag.size()));
  }

  std::vector<u8> config(const std::vector<u8>&, bool) const override {
    std::vector<u8> all(sizeof config_);
    std::memcpy(all.data(), &config_, sizeof config_);
    return all;
  }
  bool answers(unsigned) const override { return true; }
  // A fuse_out_header with the request's number. Some requests have no answer.
  u32 fail(Request& request) const override {
    struct {
      u32 bytes = 16;
      i32 error = -EIO;
      u64 number = 0;
    } header;
    constexpr u64 kNumberAt = 8;  // in fuse_in_header
    if (!request.read(kNumberAt, header.number) || !request.write(0, header)) return 0;
    return sizeof header;
  }

 private:
  struct {
    std::array<char, 36> tag{};
    u32 request_queues = 1;
  } config_;
};

}  // namespace

std::unique_ptr<DeviceKind> disk_kind(unsigned queues) { return std::make_unique<Disk>(queues); }

std::unique_ptr<DeviceKind> net_kind(const devices::virtio::Net::Settings& settings) {
  return std::make_unique<NetCard>(settings);
}

std::unique_ptr<DeviceKind> share_kind(const std::string& tag) { return std::make_unique<Share>(tag); }

}  // namespace trapline::monitor::vhost
