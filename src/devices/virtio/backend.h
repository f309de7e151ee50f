// What a kind of device adds to the core: its type and features, its configuration, and what it does with requests. To
// add one: derive, serve the queues, and plug it in src/monitor/virtio_devices.cpp.
//
// Threads: start(), stop(), configuration: under the machine's lock, and must not wait. serve(): on the device's worker
// thread (--clock instructions: inside the guest's access, under the machine's lock, and all its requests should be
// finished on return). start() and stop() interrupt nobody.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "base/invariant.h"
#include "devices/virtio/queue.h"

namespace trapline::devices::virtio {

class Backend {
 public:
  struct Kind {
    u16 type;                      // VIRTIO 1.2, 5
    const char* name;              // "virtio-rng"
    u32 class_code;                // of the PCI function: class, subclass, interface
    u64 features = 0;              // its own; feature::of_rings comes to them
    std::vector<u16> queues = {};  // the largest size of each
  };
  explicit Backend(Kind kind) : kind_{std::move(kind)} {}
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;

  const Kind& kind() const { return kind_; }

  // The bytes of the configuration space from `offset` on; what lies behind it reads as zeros.
  virtual void read_config(u64 /*offset*/, std::span<u8> /*out*/) const {}
  virtual void write_config(u64 /*offset*/, std::span<const u8> /*in*/) {}
  // Will it work with these features? They are among those offered.
  virtual bool accepts(u64 /*features*/) const { return true; }
  // The driver is ready / goes away: it gives back (finishes or drops) requests that it holds, as soon as it can.
  virtual void start(u64 /*features*/) {}
  virtual void stop() {}
  // The machine ends or is reset, and no worker runs any more: returns once nothing that it took is in flight. May wait;
  // without locks.
  virtual void settle() {}
  // There may be requests on this queue.
  virtual void serve(unsigned queue) = 0;

  // What it remembers beside the device's registers and queues; restore() is instead of start(), under the machine's lock,
  // and gets what save() has returned for such a device.
  virtual std::vector<u8> save() const { return {}; }
  virtual void restore(std::span<const u8> /*state*/, u64 /*features*/) {}

  void attach(Device& device) { device_ = &device; }

 protected:
  Device& device() const { return *device_; }
  Queue& queue(unsigned index) const;
  // For save() and restore(): a plain value.
  template <class Plain>
  static std::vector<u8> bytes_of(const Plain& value) {
    std::vector<u8> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  template <class Plain>
  static Plain plain_from(std::span<const u8> bytes) {
    Plain value{};
    if (bytes.size() == sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  // For read_config(): from a structure in the layout of the specification.
  template <class Config>
  static void copy_config(const Config& config, u64 offset, std::span<u8> out) {
    if (offset >= sizeof config) return;
    std::memcpy(out.data(), reinterpret_cast<const u8*>(&config) + offset,
                std::min<std::size_t>(out.size(), sizeof config - offset));
  }

 private:
  Kind kind_;
  Device* device_ = nullptr;
};

}  // namespace trapline::devices::virtio
