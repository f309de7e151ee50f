// Interprocessor interrupts: the ICR, destinations and delivery to other vCPUs' inboxes. SDM Vol. 3A 10.6, 10.12.9-10.
//
// Order that makes a post visible: inbox bits, then the target's attention bits (release), then the wake callback.
#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/lapic_registers.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

struct Lapic::Message {
  Delivery mode;
  u8 vector;
  bool logical;
  u32 shorthand;  // 0 none, 1 self, 2 all, 3 all but self
  u32 destination;
  bool from_x2;
};

bool Lapic::addressed(const Message& m, u32 peer) const {
  const bool self = peer == cpu_.index;
  if (m.shorthand == 1) return self;
  const LapicMirror& target = *peers_[peer].mirror;
  const u32 flags = target.flags.load(std::memory_order_acquire);
  if (!(flags & 1)) return false;
  if (m.shorthand == 2) return true;
  if (m.shorthand == 3) return !self;
  if (m.destination == (m.from_x2 ? ~u32{0} : 0xff)) return true;  // broadcast, in both destination modes
  const u32 id = target.id.load(std::memory_order_relaxed), ldr = target.ldr.load(std::memory_order_relaxed);
  if (!m.logical) return m.destination == id;
  if (flags & 2) return m.destination >> 16 == ldr >> 16 && (m.destination & ldr & 0xffff) != 0;
  const u32 logical_id = ldr >> 24;
  if (target.dfr.load(std::memory_order_relaxed) >> 28 == 0xf)
    return (m.destination & logical_id & 0xff) != 0;                                        // flat model
  return m.destination >> 4 == logical_id >> 4 && (m.destination & logical_id & 0xf) != 0;  // cluster model
}

void Lapic::deliver(const Message& m, u32 peer) {
  if (peer == cpu_.index && (m.mode == fixed || m.mode == lowest)) {
    request(m.vector, false);  // our own thread: no need for the inbox
    return raise_attention(attention::interrupt);
  }
  const Peer& target = peers_[peer];
  u32 bits = 0;
  switch (m.mode) {
    case fixed:
    case lowest:
      target.inbox->fixed[m.vector / 64].fetch_or(u64{1} << (m.vector % 64), std::memory_order_release);
      bits = attention::interrupt;
      break;
    case nmi:
      attention::post_nmi(*target.attention);
      break;
    case init:
      bits = attention::init;
      break;
    case startup:
      target.inbox->sipi_vector.store(m.vector, std::memory_order_relaxed);
      bits = attention::sipi;
      break;
    default:
      return;  // SMI: there is no system management mode to enter
  }
  target.attention->fetch_or(bits, std::memory_order_release);
  if (peer != cpu_.index && wake_) wake_(wake_context_, peer);
}

// One of the addressed APICs, in turn. A processor whose APIC is software-disabled would lose it.
void Lapic::deliver_lowest_priority(const Message& m) {
  const u32 count = static_cast<u32>(peers_.size());
  for (u32 i = 0; i < count; i++) {
    const u32 peer = (s_.next_lowest_priority + i) % count;
    if (!addressed(m, peer) || !(peers_[peer].mirror->flags.load(std::memory_order_relaxed) & 4)) continue;
    s_.next_lowest_priority = peer + 1;
    return deliver(m, peer);
  }
}

bool Lapic::unhalt(u32 apic_id) {
  for (u32 peer = 0; peer < peers_.size(); peer++) {
    const Peer& target = peers_[peer];
    if (target.mirror->id.load(std::memory_order_relaxed) != apic_id) continue;
    target.attention->fetch_or(attention::unhalt);  // seq_cst: before the look at whether it sleeps
    if (peer != cpu_.index && wake_) wake_(wake_context_, peer);
    return true;
  }
  return false;
}

void Lapic::send_ipi(u32 icr_low, u32 destination) {
  Message m{delivery_mode(icr_low),
            static_cast<u8>(icr_low),
            (icr_low & 1u << 11) != 0,
            icr_low >> 18 & 3,
            destination,
            x2apic()};
  TRACE(interrupts, "ipi mode {} vector {:#x} shorthand {} to {:#x}{}", static_cast<u32>(m.mode), m.vector, m.shorthand,
        destination, m.logical ? " logical" : "");
  // INIT level de-assert only ever synchronized arbitration ids, which no longer exist (SDM 10.6.1).
  const bool level_trigger = icr_low & 1u << 15, assert_level = icr_low & 1u << 14;
  if (m.mode == init && level_trigger && !assert_level) return;
  if ((m.mode == fixed || m.mode == lowest) && m.vector < 16) return error(kSendIllegalVector);
  // The self shorthand goes with fixed delivery alone (table 10-3); without peers (unit tests) it is all there is.
  if (m.shorthand == 1) {
    if (m.mode != fixed) return;
    request(m.vector, false);
    return raise_attention(attention::interrupt);
  }
  if (m.mode == lowest) return deliver_lowest_priority(m);
  for (u32 peer = 0; peer < peers_.size(); peer++)
    if (addressed(m, peer)) deliver(m, peer);
}

}  // namespace trapline::cpu
