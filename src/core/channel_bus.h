// cpu::Bus over the channel, for one vCPU: every access is a synchronous request to the monitor.
#pragma once

#include "channel/channel.h"
#include "channel/spin.h"
#include "cpu/bus.h"
#include "cpu/vcpu.h"

namespace trapline::core {

class ChannelBus final : public cpu::Bus {
 public:
  ChannelBus(channel::VcpuPages& pages, u32 vcpus, bool instructions_clock);

  u32 port_read(cpu::Vcpu& cpu, u16 port, unsigned size) override;
  void port_write(cpu::Vcpu& cpu, u16 port, unsigned size, u32 value) override;
  void port_read_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, u8* out) override;
  void port_write_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, const u8* in) override;
  u64 mmio_read(cpu::Vcpu& cpu, Gpa gpa, unsigned size) override;
  void mmio_write(cpu::Vcpu& cpu, Gpa gpa, unsigned size, u64 value) override;
  u8 pic_acknowledge(cpu::Vcpu& cpu) override;
  void ioapic_eoi(cpu::Vcpu& cpu, u8 vector) override;
  void numeric_error(cpu::Vcpu& cpu) override;

  void tick(cpu::Vcpu& cpu);
  void idle(cpu::Vcpu& cpu);

  // --clock instructions: the chipset's next event as of the last reply by any vCPU.
  static u64 chipset_deadline_ns();

 private:
  u64 call(cpu::Vcpu& cpu, channel::Request request);
  void await_reply(cpu::Vcpu& cpu);

  channel::VcpuPages& pages_;
  channel::Patience patience_;
  const bool instructions_clock_;
  u64 resumed_at_ = 0;  // when the last reply was seen
};

}  // namespace trapline::core
