// Interrupts on their way from the chipset to the vCPUs' local APICs. Destinations are found by the registers that each
// vCPU mirrors into the channel. SDM Vol. 3A 10.6.2 (destinations), 10.11 (messages).
#pragma once

#include <optional>
#include <vector>

#include "channel/channel.h"
#include "machine/chipset.h"

namespace trapline::monitor {

class Interrupts final : public machine::InterruptSink {
 public:
  void attach(const channel::Channel& channel) {
    channel_ = &channel;
    intr_ = 0;
  }  // before the first interrupt, and again after a reset

  void msi(Gpa address, u32 data) override;
  void extint(bool up) override;
  void nmi() override;

 private:
  void deliver(channel::VcpuPages& vcpu, u32 mode, u8 vector, bool level);
  const channel::Channel* channel_ = nullptr;
  u32 intr_ = 0;  // LapicInbox::extint as last stored
};

// Keeps interrupts until the device state that they tell of can be read in the core: a handler that is quick must not
// find the registers of before. Used under the machine's lock; whoever has used the chipset ends with release().
class HeldInterrupts final : public machine::InterruptSink {
 public:
  explicit HeldInterrupts(machine::InterruptSink& next) : next_{next} {}

  void msi(Gpa address, u32 data) override { messages_.push_back({address, data}); }
  void extint(bool up) override {
    rose_ |= up;
    extint_ = up;
  }
  void nmi() override { nmis_++; }
  void release();

 private:
  struct Message {
    Gpa address;
    u32 data;
  };
  machine::InterruptSink& next_;
  std::vector<Message> messages_;  // in order
  std::optional<bool> extint_;     // the pin's last level
  bool rose_ = false;              // an edge, even if it is down again
  u32 nmis_ = 0;
};

// Does an APIC in this state (a checked copy) answer to `destination`?
struct ApicAddress {
  u32 id, ldr, dfr, flags;
};
bool addressed(const ApicAddress& apic, u8 destination, bool logical);

}  // namespace trapline::monitor
