#include "para/xen/event_channels.h"

#include <cstddef>

namespace trapline::para::xen {

namespace {

constexpr u64 kPending = offsetof(::shared_info, evtchn_pending), kMask = offsetof(shared_info, evtchn_mask);

// Bound once per vCPU; the others once per domain, and vCPU 0's at first.
bool per_vcpu(u32 virq) {
  return virq == VIRQ_TIMER || virq == VIRQ_DEBUG || virq == VIRQ_XENOPROF || virq == VIRQ_XENPMU;
}

}  // namespace

EventChannels::EventChannels(GuestMemory& ram, Gpa shared, u32 vcpus, std::function<void(u32)> notify)
    : ram_{ram},
      shared_{shared},
      vcpus_{vcpus},
      notify_{std::move(notify)},
      channel_(kPorts),
      polls_{std::make_unique<std::atomic<bool>[]>(vcpus)},
      virq_(vcpus) {
  for (u32 i = 0; i < vcpus; i++)
    info_.push_back(i < XEN_LEGACY_MAX_VCPUS ? Gpa{shared.raw + i * sizeof(::vcpu_info)} : Gpa{0});
  for (auto& v : virq_) v.fill(0);
}

Port EventChannels::free_port() const {
  for (Port p = 1; p < kPorts; p++)
    if (channel_[p].kind == Channel::Kind::free) return p;
  return 0;
}

Port EventChannels::add_backend(Consumer consumer, u32 instance) {
  const Port port = free_port();
  channel_[port] = {Channel::Kind::backend, 0, 0, kBackDomain, consumer, instance};
  return port;
}

Status EventChannels::alloc_unbound(evtchn_alloc_unbound& op) {
  if (op.dom != DOMID_SELF && op.dom != kDomain) return fail(XEN_EPERM);
  const Port port = free_port();
  if (port == 0) return fail(XEN_ENOSPC);
  const domid_t remote = op.remote_dom == DOMID_SELF ? kDomain : op.remote_dom;
  channel_[port] = {Channel::Kind::unbound, 0, 0, remote, Consumer::none, 0};
  op.port = port;
  return 0;
}

Status EventChannels::bind_virq(evtchn_bind_virq& op) {
  if (op.virq >= NR_VIRQS) return fail(XEN_EINVAL);
  if (op.vcpu >= vcpus_) return fail(XEN_ENOENT);
  if (!per_vcpu(op.virq) && op.vcpu != 0) return fail(XEN_EINVAL);
  if (virq_[op.vcpu][op.virq] != 0) return fail(XEN_EEXIST);
  const Port port = free_port();
  if (port == 0) return fail(XEN_ENOSPC);
  channel_[port] = {Channel::Kind::virq, op.vcpu, op.virq, 0, Consumer::none, 0};
  virq_[op.vcpu][op.virq] = port;
  op.port = port;
  return 0;
}

Status EventChannels::bind_ipi(evtchn_bind_ipi& op) {
  if (op.vcpu >= vcpus_) return fail(XEN_ENOENT);
  const Port port = free_port();
  if (port == 0) return fail(XEN_ENOSPC);
  channel_[port] = {Channel::Kind::ipi, op.vcpu, 0, 0, Consumer::none, 0};
  op.port = port;
  return 0;
}

Status EventChannels::bind_vcpu(const evtchn_bind_vcpu& op) {
  if (op.vcpu >= vcpus_) return fail(XEN_ENOENT);
  if (!valid(op.port)) return fail(XEN_EINVAL);
  Channel& c = channel_[op.port];
  if (c.kind == Channel::Kind::ipi || (c.kind == Channel::Kind::virq && per_vcpu(c.virq))) return fail(XEN_EINVAL);
  c.vcpu = op.vcpu;
  return 0;
}

void EventChannels::clear(Port port) {
  for (const u64 at : {kPending, kMask}) {
    u64* words = word(at) + port / 64;
    const u64 bit = u64{1} << port % 64;
    if (at == kMask)
      __atomic_fetch_or(words, bit, __ATOMIC_SEQ_CST);  // Xen's ports are masked until somebody opens them
    else
      __atomic_fetch_and(words, ~bit, __ATOMIC_SEQ_CST);
  }
}

Status EventChannels::close(Port port) {
  if (!valid(port)) return fail(XEN_EINVAL);
  Channel& c = channel_[port];
  if (c.kind == Channel::Kind::virq) virq_[c.vcpu][c.virq] = 0;
  // As if the other side had bound it: its port is unbound when this one goes; nobody is there to look.
  c = Channel{};
  __atomic_fetch_and(word(kPending) + port / 64, ~(u64{1} << port % 64), __ATOMIC_SEQ_CST);
  return 0;
}

Status EventChannels::reset() {
  for (Port p = 1; p < kPorts; p++)
    if (channel_[p].kind != Channel::Kind::free) static_cast<void>(close(p));
  return 0;
}

bool EventChannels::connect(Port port, Consumer consumer, u32 instance) {
  if (!valid(port) || channel_[port].kind != Channel::Kind::unbound || channel_[port].remote != kBackDomain)
    return false;
  channel_[port].kind = Channel::Kind::backend;
  channel_[port].consumer = consumer;
  channel_[port].instance = instance;
  return true;
}

bool EventChannels::serves(Port port, Consumer consumer, u32 instance) const {
  return valid(port) && channel_[port].kind == Channel::Kind::backend && channel_[port].consumer == consumer &&
         channel_[port].instance == instance;
}

void EventChannels::disconnect(Port port, Consumer consumer, u32 instance) {
  if (!serves(port, consumer, instance)) return;
  channel_[port].kind = Channel::Kind::unbound;
  channel_[port].consumer = Consumer::none;
}

Status EventChannels::status(evtchn_status& op) const {
  if (op.dom != DOMID_SELF && op.dom != kDomain) return fail(XEN_EPERM);
  if (op.port == 0 || op.port >= kPorts) return fail(XEN_EINVAL);
  const Channel& c = channel_[op.port];
  op.vcpu = c.vcpu;
  switch (c.kind) {
    case Channel::Kind::free:
      op.status = EVTCHNSTAT_closed;
      break;
    case Channel::Kind::unbound:
      op.status = EVTCHNSTAT_unbound;
      op.u.unbound.dom = c.remote;
      break;
    case Channel::Kind::backend:
      op.status = EVTCHNSTAT_interdomain;
      op.u.interdomain.dom = c.remote;
      op.u.interdomain.port = op.port;
      break;
    case Channel::Kind::virq:
      op.status = EVTCHNSTAT_virq;
      op.u.virq = c.virq;
      break;
    case Channel::Kind::ipi:
      op.status = EVTCHNSTAT_ipi;
      break;
  }
  return 0;
}

Status EventChannels::send(Port port, Channel* to) {
  if (!valid(port)) return fail(XEN_EINVAL);
  const Channel& c = channel_[port];
  switch (c.kind) {
    case Channel::Kind::ipi:
      raise(port);
      return 0;
    case Channel::Kind::backend:
      *to = c;
      return 0;
    case Channel::Kind::unbound:
      return 0;  // dropped
    default:
      return fail(XEN_EINVAL);
  }
}

bool EventChannels::test_and_set(u64* words, Port port) const {
  const u64 bit = u64{1} << port % 64;
  return __atomic_fetch_or(words + port / 64, bit, __ATOMIC_SEQ_CST) & bit;
}

// Pending first, then the selector, then the flag: the guest clears them in the other order.
void EventChannels::mark(u32 vcpu) {
  std::byte* info = ram_.host(info_[vcpu]);
  auto* flag = reinterpret_cast<u8*>(info) + offsetof(::vcpu_info, evtchn_upcall_pending);
  if (__atomic_exchange_n(flag, u8{1}, __ATOMIC_SEQ_CST) == 0) notify_(vcpu);
}

void EventChannels::set_polling(u32 vcpu, bool polls) {
  if (polls_[vcpu].exchange(polls) != polls) pollers_.fetch_add(polls ? 1u : ~0u);
}

// After the pending bit: who polls looks at the bits after it has said so.
void EventChannels::tell_pollers() {
  if (pollers_.load() == 0) return;
  for (u32 vcpu = 0; vcpu < vcpus_; vcpu++)
    if (polls_[vcpu].load()) notify_(vcpu);
}

void EventChannels::raise(Port port) {
  if (!valid(port)) return;
  const u32 vcpu = channel_[port].vcpu;
  if (test_and_set(word(kPending), port)) return;
  tell_pollers();
  if (info_[vcpu].raw == 0) return;
  if (__atomic_load_n(word(kMask) + port / 64, __ATOMIC_SEQ_CST) >> port % 64 & 1) return;
  auto* selector = reinterpret_cast<u64*>(ram_.host(info_[vcpu]) + offsetof(::vcpu_info, evtchn_pending_sel));
  const u64 bit = u64{1} << port / 64;
  if (!(__atomic_fetch_or(selector, bit, __ATOMIC_SEQ_CST) & bit)) mark(vcpu);
}

Status EventChannels::unmask(Port port) {
  if (!valid(port)) return fail(XEN_EINVAL);
  const u64 bit = u64{1} << port % 64;
  const u64 was = __atomic_fetch_and(word(kMask) + port / 64, ~bit, __ATOMIC_SEQ_CST);
  if (!(was & bit) || !pending(port)) return 0;
  const u32 vcpu = channel_[port].vcpu;
  if (info_[vcpu].raw == 0) return 0;
  auto* selector = reinterpret_cast<u64*>(ram_.host(info_[vcpu]) + offsetof(::vcpu_info, evtchn_pending_sel));
  const u64 select = u64{1} << port / 64;
  if (!(__atomic_fetch_or(selector, select, __ATOMIC_SEQ_CST) & select)) mark(vcpu);
  return 0;
}

void EventChannels::raise_virq(u32 vcpu, u32 virq) {
  if (const Port port = virq_[vcpu][virq]; port != 0) raise(port);
}

bool EventChannels::pending(Port port) const {
  return port < kPorts && (__atomic_load_n(word(kPending) + port / 64, __ATOMIC_SEQ_CST) >> port % 64 & 1);
}

bool EventChannels::upcall(u32 vcpu) const {
  if (info_[vcpu].raw == 0) return false;
  const auto* info = reinterpret_cast<const u8*>(ram_.host(info_[vcpu]));
  return __atomic_load_n(info + offsetof(::vcpu_info, evtchn_upcall_pending), __ATOMIC_SEQ_CST) != 0 &&
         __atomic_load_n(info + offsetof(::vcpu_info, evtchn_upcall_mask), __ATOMIC_SEQ_CST) == 0;
}

}  // namespace trapline::para::xen
