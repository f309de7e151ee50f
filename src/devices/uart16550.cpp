#include "devices/uart16550.h"

#include <utility>

namespace trapline::devices {

namespace {

enum Register : u64 { kData = 0, kIer = 1, kIir = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScratch = 7 };

constexpr u8 kIerReceive = 1, kIerTransmit = 2, kIerLine = 4, kIerModem = 8;
constexpr u8 kIirNone = 0x01, kIirModem = 0x00, kIirTransmit = 0x02, kIirReceive = 0x04, kIirLine = 0x06,
             kIirTimeout = 0x0c;
constexpr u8 kLsrReady = 0x01, kLsrOverrun = 0x02, kLsrEmpty = 0x60;  // THRE and TEMT
constexpr u8 kMsrIdleLine = 0xb0;  // a terminal that is there and ready: DCD, DSR, CTS

}  // namespace

Uart16550::Uart16550(IrqLine& irq, Send send) : irq_{irq}, send_{std::move(send)} {}

void Uart16550::reset() {
  s_.head = s_.count = 0;
  s_.ier = s_.fcr = s_.lcr = s_.mcr = s_.scratch = s_.last_received = s_.msr_delta = 0;
  s_.divisor = 12;
  s_.overrun = s_.thre_pending = false;
  update_irq();
}

u64 Uart16550::read(u64 offset, unsigned) {
  switch (offset & 7) {
    case kData:
      return dlab() ? s_.divisor & 0xff : pop_received();
    case kIer:
      return dlab() ? s_.divisor >> 8 : s_.ier;
    case kIir:
      return read_iir();
    case kLcr:
      return s_.lcr;
    case kMcr:
      return s_.mcr;
    case kLsr:
      return read_lsr();
    case kMsr:
      return read_msr();
    default:
      return s_.scratch;
  }
}

void Uart16550::write(u64 offset, unsigned, u64 value) {
  const u8 byte = static_cast<u8>(value);
  switch (offset & 7) {
    case kData:
      if (dlab())
        s_.divisor = static_cast<u16>((s_.divisor & 0xff00) | byte);
      else
        transmit(byte);
      break;
    case kIer:
      if (dlab())
        s_.divisor = static_cast<u16>((s_.divisor & 0x00ff) | byte << 8);
      else
        write_ier(byte);
      break;
    case kIir:
      write_fcr(byte);
      break;
    case kLcr:
      s_.lcr = byte;
      break;
    case kMcr:
      write_mcr(byte);
      break;
    case kLsr:
    case kMsr:
      break;  // factory-test and delta bits: not for software
    default:
      s_.scratch = byte;
      break;
  }
}

// Writing the holding register takes the THRE event back, as reading IIR does (PC16550D, table "interrupt set and
// reset"). The line is infinitely fast: the register is empty again at once, which is a new event and, for a controller
// that listens to edges, a new edge.
void Uart16550::transmit(u8 byte) {
  s_.thre_pending = false;
  update_irq();
  if (loopback())
    push_received(byte);
  else
    send_(byte);
  s_.thre_pending = true;
  update_irq();
}

u8 Uart16550::pop_received() {
  if (s_.count != 0) {
    s_.last_received = s_.fifo[s_.head];
    s_.head = (s_.head + 1) % kFifoSize;
    s_.count--;
    update_irq();
  }
  return s_.last_received;
}

void Uart16550::push_received(u8 byte) {
  if (s_.count == capacity()) {
    s_.overrun = true;
    if (fifo_enabled()) return;  // the FIFO keeps what it has; without one the new byte replaces the old
    s_.count = 0;
  }
  s_.fifo[(s_.head + s_.count) % kFifoSize] = byte;
  s_.count++;
}

std::size_t Uart16550::room() const {
  return loopback() ? 0 : capacity() - s_.count;  // loopback disconnects the input pin
}

std::size_t Uart16550::receive(const u8* bytes, std::size_t count) {
  const std::size_t n = count < room() ? count : room();
  for (std::size_t i = 0; i < n; i++) push_received(bytes[i]);
  if (n != 0) update_irq();
  return n;
}

std::size_t Uart16550::trigger() const {
  static constexpr std::size_t kLevels[] = {1, 4, 8, 14};
  return fifo_enabled() ? kLevels[s_.fcr >> 6] : 1;
}

// Priorities: line status, received data or character time-out, transmitter empty, modem status. Fewer bytes than the
// trigger are reported as a time-out at once: no further byte is on its way, and waiting four character times would
// only delay the guest. OUT2 does not gate the interrupt, unlike on a PC's board: guests written on virtual machines
// forget to set it.
u8 Uart16550::interrupt_id() const {
  if ((s_.ier & kIerLine) && s_.overrun) return kIirLine;
  if ((s_.ier & kIerReceive) && s_.count >= trigger()) return kIirReceive;
  if ((s_.ier & kIerReceive) && s_.count != 0) return kIirTimeout;
  if ((s_.ier & kIerTransmit) && s_.thre_pending) return kIirTransmit;
  if ((s_.ier & kIerModem) && s_.msr_delta != 0) return kIirModem;
  return kIirNone;
}

u8 Uart16550::read_iir() {
  const u8 id = interrupt_id();
  if (id == kIirTransmit) {  // reading is the acknowledgement of this one source
    s_.thre_pending = false;
    update_irq();
  }
  return id | fifo_bits();
}

u8 Uart16550::line_status() const {
  return static_cast<u8>(kLsrEmpty | (s_.count != 0 ? kLsrReady : 0) | (s_.overrun ? kLsrOverrun : 0));
}

u8 Uart16550::read_lsr() {
  const u8 value = line_status();
  s_.overrun = false;
  update_irq();
  return value;
}

// In loopback the four modem inputs are the four outputs: DTR -> DSR, RTS -> CTS, OUT1 -> RI, OUT2 -> DCD.
u8 Uart16550::modem_inputs() const {
  if (!loopback()) return kMsrIdleLine;
  u8 in = 0;
  if (s_.mcr & 1) in |= 0x20;
  if (s_.mcr & 2) in |= 0x10;
  if (s_.mcr & 4) in |= 0x40;
  if (s_.mcr & 8) in |= 0x80;
  return in;
}

u8 Uart16550::read_msr() {
  const u8 value = modem_inputs() | s_.msr_delta;
  s_.msr_delta = 0;
  update_irq();
  return value;
}

UartView Uart16550::view() const {
  UartView v;
  const auto readable = [&](unsigned reg, u8 value) { v.value[reg] = value, v.possible[reg] = UartView::kReadable; };
  if (!dlab()) readable(kIer, s_.ier);
  if (const u8 id = interrupt_id(); id != kIirTransmit) readable(kIir, id | fifo_bits());
  readable(kLcr, s_.lcr);
  readable(kMcr, s_.mcr);
  if (!s_.overrun) readable(kLsr, line_status());
  if (s_.msr_delta == 0) readable(kMsr, modem_inputs());
  readable(kScratch, s_.scratch);
  // THRE is told to those who enabled its interrupt; enabling it tells anew.
  if (!dlab() && !loopback()) v.possible[kData] = s_.ier & kIerTransmit ? UartView::kInterrupts : UartView::kSends;
  return v;
}

void Uart16550::write_ier(u8 value) {
  const bool was = s_.ier & kIerTransmit;
  s_.ier = value & 0x0f;
  if (!was && (s_.ier & kIerTransmit)) s_.thre_pending = true;  // enabling it with an empty transmitter interrupts
  update_irq();
}

void Uart16550::write_fcr(u8 value) {
  const bool toggled = (value ^ s_.fcr) & 1;
  if (toggled || ((value & 1) && (value & 2))) s_.head = s_.count = 0;
  s_.fcr = value & 1 ? value & 0xc9 : 0;  // other bits program only together with the enable bit
  update_irq();
}

void Uart16550::write_mcr(u8 value) {
  const u8 before = modem_inputs();
  s_.mcr = value & 0x1f;
  const u8 after = modem_inputs(), changed = before ^ after;
  s_.msr_delta |= changed >> 4 & 0x0b;                           // DCTS, DDSR, DDCD
  if ((before & 0x40) && !(after & 0x40)) s_.msr_delta |= 0x04;  // TERI: the trailing edge only
  update_irq();
}

}  // namespace trapline::devices
