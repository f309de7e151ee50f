// Event channels of the one domain: ports, what they are bound to, and the pending bits in the shared info page (the
// 2-level ABI of xen/event_channel.h) by which the guest learns of them. The caller holds the domain's event lock.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/guest_memory.h"
#include "para/xen/abi.h"

namespace trapline::para::xen {

using Port = evtchn_port_t;

// Who hears what the guest sends: a back end in the hypervisor, by number; none for ports of other kinds.
enum class Consumer : u8 { none, store, console, block, network };

struct Channel {
  enum class Kind : u8 { free, unbound, backend, virq, ipi } kind = Kind::free;
  u32 vcpu = 0;                        // whom it notifies
  u32 virq = 0;                        // of kind virq
  domid_t remote = 0;                  // of unbound and backend
  Consumer consumer = Consumer::none;  // of backend
  u32 instance = 0;                    // which of the consumer's
};

class EventChannels {
 public:
  // `notify`: a vCPU has an upcall to make, and may sleep.
  EventChannels(GuestMemory& ram, Gpa shared, u32 vcpus, std::function<void(u32 vcpu)> notify);

  // Ports that exist from the start, for the two rings of the start info.
  Port add_backend(Consumer consumer, u32 instance);

  Status alloc_unbound(evtchn_alloc_unbound& op);
  Status bind_virq(evtchn_bind_virq& op);
  Status bind_ipi(evtchn_bind_ipi& op);
  Status bind_vcpu(const evtchn_bind_vcpu& op);
  Status close(Port port);
  Status unmask(Port port);
  Status status(evtchn_status& op) const;
  Status reset();
  // What a back end does with a port that the guest has told it of: Xen's bind_interdomain, from the other side.
  bool connect(Port port, Consumer consumer, u32 instance);
  // Is it that back end's? The guest may have closed it meanwhile, and have made something else of the number.
  bool serves(Port port, Consumer consumer, u32 instance) const;
  // The back end closes its side: the port waits to be bound again.
  void disconnect(Port port, Consumer consumer, u32 instance);

  // The vCPU begins or ends to wait for ports itself (SCHEDOP_poll). Meanwhile it is told of each port that becomes
  // pending, masked or not and whosever it is. Needs no lock: it looks at the ports once more after it has begun.
  void set_polling(u32 vcpu, bool polls);

  // EVTCHNOP_send. `to` is whose business it is; none: the guest's own.
  Status send(Port port, Channel* to);
  // From a back end or a virtual interrupt to the guest.
  void raise(Port port);
  void raise_virq(u32 vcpu, u32 virq);
  bool pending(Port port) const;

  void place_vcpu_info(u32 vcpu, Gpa gpa) { info_[vcpu] = gpa; }
  Gpa vcpu_info(u32 vcpu) const { return info_[vcpu]; }
  // Was the upcall flag set, and is it not masked?
  bool upcall(u32 vcpu) const;
  static constexpr Port kPorts = EVTCHN_2L_NR_CHANNELS;

 private:
  bool valid(Port port) const { return port != 0 && port < kPorts && channel_[port].kind != Channel::Kind::free; }
  Port free_port() const;
  u64* word(u64 offset) const { return reinterpret_cast<u64*>(ram_.host(shared_) + offset); }
  bool test_and_set(u64* words, Port port) const;
  void mark(u32 vcpu);
  void tell_pollers();
  void clear(Port port);

  GuestMemory& ram_;
  Gpa shared_;
  u32 vcpus_;
  std::function<void(u32)> notify_;
  std::vector<Channel> channel_;
  std::vector<Gpa> info_;
  std::unique_ptr<std::atomic<bool>[]> polls_;  // by vCPU
  std::atomic<u32> pollers_{0};
  std::vector<std::array<Port, NR_VIRQS>> virq_;
};

}  // namespace trapline::para::xen
