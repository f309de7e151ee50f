// What the CPU reaches outside RAM: ports, device memory, the legacy interrupt controller. In the core process the
// channel implements this; unit tests and fuzzers give their own.
#pragma once

#include "base/addr.h"
#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

struct Bus {
  virtual ~Bus() = default;
  // size: 1, 2 or 4 bytes. Ports without a device read all ones.
  virtual u32 port_read(Vcpu& cpu, u16 port, unsigned size) = 0;
  virtual void port_write(Vcpu& cpu, u16 port, unsigned size, u32 value) = 0;
  // REP INS / REP OUTS: `count` items of `size` bytes, in order. The default loops over the single accesses.
  virtual void port_read_many(Vcpu& cpu, u16 port, unsigned size, u32 count, u8* out) {
    for (u32 i = 0; i < count; i++, out += size) {
      const u32 v = port_read(cpu, port, size);
      __builtin_memcpy(out, &v, size);
    }
  }
  virtual void port_write_many(Vcpu& cpu, u16 port, unsigned size, u32 count, const u8* in) {
    for (u32 i = 0; i < count; i++, in += size) {
      u32 v = 0;
      __builtin_memcpy(&v, in, size);
      port_write(cpu, port, size, v);
    }
  }
  // size: 1..8 bytes, never across a page. Nobody there: reads all ones.
  virtual u64 mmio_read(Vcpu& cpu, Gpa gpa, unsigned size) = 0;
  virtual void mmio_write(Vcpu& cpu, Gpa gpa, unsigned size, u64 value) = 0;
  // The 8259's interrupt acknowledge cycle: the vector, after which the request is in service.
  virtual u8 pic_acknowledge(Vcpu& cpu) = 0;
  // A level-triggered vector was ended: the IOAPIC's remote IRR for it clears (SDM Vol. 3A 10.8.5).
  virtual void ioapic_eoi(Vcpu& cpu, u8 vector) = 0;
  // FERR# has gone up: an x87 error with CR0.NE = 0, which the board makes IRQ 13 of.
  virtual void numeric_error(Vcpu&) {}
};

}  // namespace trapline::cpu
