#include "para/xen/console.h"

#include "base/trace.h"
#include "para/xen/domain.h"
#include "para/xen/serving_lock.h"

namespace trapline::para::xen {

namespace {

constexpr u16 kCom1 = 0x3f8;
constexpr u64 kIoApic = 0xfec00000;
constexpr unsigned kComPin = 4;
enum Register : u16 { data = 0, interrupts = 1, fifo = 2, modem = 4, line = 5 };

xencons_interface* ring_at(GuestMemory& ram, Mfn page) {
  return reinterpret_cast<xencons_interface*>(ram.host(gpa(page)));
}

u32 load(const u32& index) { return __atomic_load_n(&index, __ATOMIC_ACQUIRE); }
void store(u32& index, u32 value) { __atomic_store_n(&index, value, __ATOMIC_RELEASE); }

}  // namespace

// The serial port interrupts vCPU 0 when there is input, by the IOAPIC.
void Console::set_up(cpu::Vcpu& cpu) {
  if (std::exchange(ready_, true)) return;
  const auto redirect = [&cpu](unsigned index, u32 value) {
    cpu.bus->mmio_write(cpu, Gpa{kIoApic}, 4, 0x10 + 2 * kComPin + index);
    cpu.bus->mmio_write(cpu, Gpa{kIoApic + 0x10}, 4, value);
  };
  redirect(1, 0);  // to APIC 0
  redirect(0, kVector);
  cpu.bus->port_write(cpu, kCom1 + fifo, 1, 1);
  cpu.bus->port_write(cpu, kCom1 + modem, 1, 0x0b);  // OUT2 lets interrupts out
  cpu.bus->port_write(cpu, kCom1 + interrupts, 1, 1);
}

void Console::emit(cpu::Vcpu& cpu, std::string_view text) {
  if (!cpu.bus) return;
  for (const char c : text) cpu.bus->port_write(cpu, kCom1 + data, 1, static_cast<u8>(c));
}

// What the guest has written since; true if there was any.
bool Console::drain(cpu::Vcpu& cpu) {
  xencons_interface* r = ring_at(ram_, page_);
  u32 from = r->out_cons;
  const u32 count = load(r->out_prod) - from;
  if (count == 0 || count > sizeof r->out) return false;
  char text[sizeof r->out];
  for (u32 i = 0; i < count; i++) text[i] = r->out[MASK_XENCONS_IDX(from + i, r->out)];
  store(r->out_cons, from + count);
  emit(cpu, {text, count});
  return true;
}

// What has been typed, as far as the ring has room.
bool Console::fill(cpu::Vcpu& cpu) {
  xencons_interface* r = ring_at(ram_, page_);
  bool any = false;
  for (;;) {
    const u32 to = r->in_prod;
    if (to - load(r->in_cons) >= sizeof r->in) break;
    if (!(cpu.bus->port_read(cpu, kCom1 + line, 1) & 1)) break;
    r->in[MASK_XENCONS_IDX(to, r->in)] = static_cast<char>(cpu.bus->port_read(cpu, kCom1 + data, 1));
    store(r->in_prod, to + 1);
    any = true;
  }
  return any;
}

void Console::notified(cpu::Vcpu& cpu) {
  if (!cpu.bus) return;
  bool news = false;
  {
    const ServingLock held{lock_, cpu};
    set_up(cpu);
    news = drain(cpu);
    news |= fill(cpu);
  }
  if (news) domain_.raise(port_);
}

void Console::received(cpu::Vcpu& cpu) {
  bool news = false;
  {
    const ServingLock held{lock_, cpu};
    news = fill(cpu);
  }
  if (news) domain_.raise(port_);
}

}  // namespace trapline::para::xen
