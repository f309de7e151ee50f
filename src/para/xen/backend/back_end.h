// One paravirtual device as its driver in domain 0 would serve it: the nodes in xenstore, and the conversation of states
// by which the guest's front end connects, leaves and comes back (xen/io/xenbus.h). What is served, a derived class says.
//
//   front end    Initialising           Initialised, Connected             Closing    Closed
//   back end     InitWait               Connected                          Closing    Closed, once nothing is in flight
//
// Whatever a front end writes that cannot be served: Closed, and why in the node "error". All calls on vCPUs' threads.
// Locks: each back end's own, before the store's and the domain's.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cpu/vcpu.h"
#include "para/xen/domain.h"
#include "para/xen/store.h"

namespace trapline::para::xen {

class BackEnd {
 public:
  // `kind`: "vbd" or "vif"; `number`: of the device among its kind, as the guest knows it; `instance`: as ports name it.
  BackEnd(Domain& domain, const char* kind, u32 number, Consumer consumer, u32 instance);
  virtual ~BackEnd() = default;
  BackEnd(const BackEnd&) = delete;

  // What a toolstack and the driver of domain 0 write before the guest runs.
  void announce(cpu::Vcpu& cpu);
  // The guest has changed the node, or all below it.
  void store_changed(cpu::Vcpu& cpu, const Store::Change& change);
  void notified(cpu::Vcpu& cpu);     // the front end has sent
  void interrupted(cpu::Vcpu& cpu);  // the machine's device has interrupted
  XenbusState state() const { return state_; }

 protected:
  using Nodes = std::vector<std::pair<std::string, std::string>>;
  // -- All under the lock.
  virtual Nodes front_nodes() const = 0;
  virtual Nodes back_nodes() const = 0;
  // Takes what the front end has written. Error: why it cannot be; nothing is held then.
  virtual Result<void, std::string> connect(cpu::Vcpu& cpu) = 0;
  // Gives back what connect() has taken; nothing is in flight.
  virtual void disconnect(cpu::Vcpu& cpu) = 0;
  virtual bool idle() const = 0;
  // Requests of the front end; what the device has done. Error: what it asks makes no sense.
  virtual Result<void, std::string> serve(cpu::Vcpu& cpu) = 0;
  virtual Result<void, std::string> complete(cpu::Vcpu& cpu) = 0;

  // A number that the front end has written. Error: a line.
  Result<u32, std::string> front_number(cpu::Vcpu& cpu, const char* node);
  std::optional<std::string> front_value(cpu::Vcpu& cpu, const char* node);
  // The guest's pages speak 64-bit.
  Result<void, std::string> check_protocol(cpu::Vcpu& cpu);
  // The front end's port, as "event-channel" has it.
  Result<void, std::string> connect_port(cpu::Vcpu& cpu, const char* node, Port* port);
  void disconnect_port(Port port) { domain_.disconnect_port(port, consumer_, instance_); }
  void raise(Port port) { domain_.raise_if_connected(port, consumer_, instance_); }

  Domain& domain_;

 private:
  void advance(cpu::Vcpu& cpu);
  void after(cpu::Vcpu& cpu, const Result<void, std::string>& result);
  void leave(cpu::Vcpu& cpu, XenbusState to);
  void fail(cpu::Vcpu& cpu, const std::string& why);
  void change_state(cpu::Vcpu& cpu, XenbusState to);

  const Consumer consumer_;
  const u32 instance_;
  const std::string kind_, front_, back_;
  XenbusState state_ = XenbusStateInitialising, front_state_ = XenbusStateInitialising;
  bool connected_ = false, leaving_ = false;
  std::mutex lock_;
};

}  // namespace trapline::para::xen
