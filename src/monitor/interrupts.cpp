#include "monitor/interrupts.h"

#include "base/trace.h"

namespace trapline::monitor {

namespace {

enum Delivery : u32 { fixed = 0, lowest = 1, smi = 2, nmi_mode = 4, init = 5, extint_mode = 7 };
constexpr u32 kEnabled = 1, kX2 = 2, kSoftwareEnabled = 4;

ApicAddress copy(const channel::LapicMirror& m) {
  return {m.id.load(std::memory_order_relaxed), m.ldr.load(std::memory_order_relaxed),
          m.dfr.load(std::memory_order_relaxed), m.flags.load(std::memory_order_acquire)};
}

void post_nmi(channel::VcpuPages& vcpu) {
  channel::attention::post_nmi(vcpu.attention);
  channel::wake(vcpu);
}

}  // namespace

bool addressed(const ApicAddress& apic, u8 destination, bool logical) {
  if (!(apic.flags & kEnabled)) return false;
  if (!logical) return destination == 0xff || apic.id == destination;
  if (apic.flags & kX2)  // a message carries 8 bits: cluster 0
    return (apic.ldr >> 16) == 0 && (apic.ldr & 0xffff & destination) != 0;
  const u8 logical_id = static_cast<u8>(apic.ldr >> 24);
  if (apic.dfr >> 28 == 0xf) return (logical_id & destination) != 0;
  const bool cluster = destination >> 4 == 0xf || destination >> 4 == logical_id >> 4;
  return cluster && (logical_id & destination & 0xf) != 0;
}

void Interrupts::deliver(channel::VcpuPages& vcpu, u32 mode, u8 vector, bool level) {
  using namespace channel::attention;
  switch (mode) {
    case fixed:
    case lowest: {
      const u64 bit = u64{1} << (vector % 64);
      if (level)
        vcpu.inbox.level[vector / 64].fetch_or(bit, std::memory_order_relaxed);
      else
        vcpu.inbox.level[vector / 64].fetch_and(~bit, std::memory_order_relaxed);
      vcpu.inbox.fixed[vector / 64].fetch_or(bit, std::memory_order_release);
      return channel::kick(vcpu, interrupt);
    }
    case nmi_mode:
      return post_nmi(vcpu);
    case init:
      return channel::kick(vcpu, channel::attention::init);
    default:
      return;  // SMI: no SMM; ExtINT by message: the 8259 is wired to LINT0 instead
  }
}

void Interrupts::msi(Gpa address, u32 data) {
  const u8 destination = static_cast<u8>(address.raw >> 12), vector = static_cast<u8>(data);
  const bool logical = address.raw & 4, level = data & 0x8000;
  const u32 mode = data >> 8 & 7;
  TRACE(interrupts, "message {:#x} to {}{:#x}, mode {}{}", vector, logical ? "logical " : "", destination, mode,
        level ? ", level" : "");
  for (u32 i = 0; i < channel_->vcpus(); i++) {
    channel::VcpuPages& vcpu = channel_->vcpu(i);
    const ApicAddress apic = copy(vcpu.mirror);
    if (!addressed(apic, destination, logical)) continue;
    if ((mode == fixed || mode == lowest) && !(apic.flags & kSoftwareEnabled)) continue;
    deliver(vcpu, mode, vector, level);
    if (mode == lowest) return;  // the first one is as good as any: no APIC mirrors its priority
  }
}

void Interrupts::extint(bool up) {
  channel::VcpuPages& boot = channel_->vcpu(0);
  const bool rises = up && !(intr_ & 1);
  intr_ = ((intr_ & ~1u) + (rises ? 2 : 0)) | (up ? 1 : 0);
  boot.inbox.extint.store(intr_, std::memory_order_release);
  if (up) channel::kick(boot, channel::attention::interrupt);
}

void Interrupts::nmi() { post_nmi(channel_->vcpu(0)); }

void HeldInterrupts::release() {
  for (const Message& m : messages_) next_.msi(m.address, m.data);
  messages_.clear();
  if (rose_) {
    next_.extint(false);
    next_.extint(true);
  }
  if (extint_) next_.extint(*extint_);
  extint_.reset();
  rose_ = false;
  for (; nmis_ != 0; nmis_--) next_.nmi();
}

}  // namespace trapline::monitor
