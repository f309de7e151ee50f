// What back ends are given of the domain: the frames that it has granted to them, and the other ends of its ports.
#include "para/xen/domain.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

void Domain::release(cpu::Vcpu& cpu, const Held& grant) {
  let_go(cpu, grant.frame, grant.writes);
  if (--held_[grant.ref] == 0) end_grant(grant.ref);
}

bool Domain::hold_grants(cpu::Vcpu& cpu, std::span<Held> grants) {
  const Locked locked{*this, cpu};
  if (held_.empty()) held_.resize(kGrantFrames * kPageSize / sizeof(grant_entry_v1_t));
  for (std::size_t i = 0; i < grants.size(); i++) {
    Held& g = grants[i];
    u16* flags;
    if (granted(g.ref, g.writes, &g.frame, &flags, kBackDomain) != GNTST_okay || !hold(cpu, g.frame, g.writes)) {
      while (i-- > 0) release(cpu, grants[i]);
      return false;
    }
    held_[g.ref]++;
    __atomic_fetch_or(flags, static_cast<u16>(GTF_reading | (g.writes ? GTF_writing : 0)), __ATOMIC_SEQ_CST);
  }
  return true;
}

void Domain::release_grants(cpu::Vcpu& cpu, std::span<const Held> grants) {
  if (grants.empty()) return;
  const Locked locked{*this, cpu};
  for (const Held& g : grants) release(cpu, g);
}

bool Domain::connect_port(Port port, Consumer consumer, u32 instance) {
  const std::lock_guard guard{events_lock_};
  return events_.connect(port, consumer, instance);
}

void Domain::disconnect_port(Port port, Consumer consumer, u32 instance) {
  const std::lock_guard guard{events_lock_};
  events_.disconnect(port, consumer, instance);
}

void Domain::raise_if_connected(Port port, Consumer consumer, u32 instance) {
  const std::lock_guard guard{events_lock_};
  if (events_.serves(port, consumer, instance)) events_.raise(port);
}

}  // namespace trapline::para::xen
