// What the core answers by itself: accesses whose answer follows from the guest's time and from device state that the
// monitor has published (devices/device_page.h), or that concern nobody but the reader. All else is asked of the
// monitor.
//
//   PM timer                        the time alone
//   8254 counters, port 61          published counters; latches and byte order are kept here
//   RTC                             published registers, the index kept here; register C is the monitor's
//   IOAPIC                          published entries, the register select kept here
//   COM1                            what the published UartView allows; a byte to send is posted (serial_ring.h)
//   virtio doorbells                posted (doorbell.h)
//   80 to 8F                        memory without meaning, kept here
//   ports without a device          all ones: probing for ISA cards is thousands of them
//
// What is kept here and the monitor needs (index, select) goes along with the access that needs it.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "channel/doorbell.h"
#include "channel/serial_ring.h"
#include "core/short_lock.h"
#include "cpu/bus.h"
#include "devices/device_page.h"

namespace trapline::core {

// Of the VM: shared by its vCPUs' buses.
struct LocalDevices {
  // `posting`: else each byte to send is a request. `bells`: kDoorbells of them; null: each ring is a request.
  LocalDevices(const devices::DevicePage& p, channel::SerialRing& s, bool posting, channel::Doorbell* bells = nullptr)
      : page{p}, serial{s}, posts{posting}, doorbells{bells} {}

  const devices::DevicePage& page;
  channel::SerialRing& serial;
  const bool posts;
  channel::Doorbell* const doorbells;

  ShortLock pit_lock, serial_lock;  // never taken together
  devices::PitReader pit;           // under pit_lock
  std::atomic<u8> rtc_index{0}, ioapic_select{0};
  std::array<std::atomic<u8>, 16> post{};
};

// Of a vCPU. `next` answers what is not answered here.
class LocalBus final : public cpu::Bus {
 public:
  LocalBus(LocalDevices& devices, cpu::Bus& next) : d_{devices}, next_{next} {}

  u32 port_read(cpu::Vcpu& cpu, u16 port, unsigned size) override;
  void port_write(cpu::Vcpu& cpu, u16 port, unsigned size, u32 value) override;
  void port_read_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, u8* out) override;
  void port_write_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, const u8* in) override;
  u64 mmio_read(cpu::Vcpu& cpu, Gpa gpa, unsigned size) override;
  void mmio_write(cpu::Vcpu& cpu, Gpa gpa, unsigned size, u64 value) override;
  u8 pic_acknowledge(cpu::Vcpu& cpu) override { return next_.pic_acknowledge(cpu); }
  void ioapic_eoi(cpu::Vcpu& cpu, u8 vector) override { next_.ioapic_eoi(cpu, vector); }

 private:
  bool nobody_at(u32 port, u32 size) const { return d_.page.free_ports.all(port, size); }
  u8 read_byte(cpu::Vcpu& cpu, u16 port);
  void write_byte(cpu::Vcpu& cpu, u16 port, u8 value);
  u8 read_pit(cpu::Vcpu& cpu, unsigned counter);
  bool pit_command(cpu::Vcpu& cpu, u8 byte);
  u8 read_rtc(cpu::Vcpu& cpu);
  u8 read_com1(cpu::Vcpu& cpu, unsigned reg);
  void send_com1(cpu::Vcpu& cpu, u8 byte);
  bool ring_doorbell(Gpa gpa);

  LocalDevices& d_;
  cpu::Bus& next_;
};

}  // namespace trapline::core
