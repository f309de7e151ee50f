// What kinds of devices a vhost-user back end may be, as far as the front end has to know: everything else of a request is
// between guest and back end.
#pragma once

#include <memory>

#include "devices/virtio/device.h"
#include "devices/virtio/net.h"

namespace trapline::monitor::vhost {

// Bytes of a disk's configuration that guests may see (VIRTIO 1.2, 5.2.4).
inline constexpr u32 kDiskConfig = 60;

class DeviceKind {
 public:
  struct Facts {
    u16 type;
    const char* name;
    u32 class_code;
    u64 passed;  // features that the back end may offer to the guest: nothing of them is done here
    u64 own;     // those that are done here
    std::vector<u16> queues;
    bool drains;       // what the back end has comes back by itself, soon
    const char* loss;  // what the guest gets once the back end is gone
  };
  virtual ~DeviceKind() = default;
  const Facts& facts() const { return facts_; }
  // `from_peer`: the back end's. `lost`: there is none any more.
  virtual std::vector<u8> config(const std::vector<u8>& from_peer, bool lost) const = 0;
  // Without a back end: are requests of this queue answered, or left where they are? And what the answer has written.
  virtual bool answers(unsigned queue) const = 0;
  virtual u32 fail(devices::virtio::Request& request) const = 0;

 protected:
  explicit DeviceKind(Facts facts) : facts_{std::move(facts)} {}

 private:
  Facts facts_;
};

std::unique_ptr<DeviceKind> disk_kind(unsigned queues);
std::unique_ptr<DeviceKind> net_kind(const devices::virtio::Net::Settings& settings);
std::unique_ptr<DeviceKind> share_kind(const std::string& tag);

}  // namespace trapline::monitor::vhost
