#include "devices/ioapic.h"

#include "base/trace.h"

namespace trapline::devices {

namespace {

constexpr u32 kVersion = 0x20;
constexpr u64 kLogical = 1u << 11, kStatus = 1u << 12, kActiveLow = 1u << 13, kRemoteIrr = 1u << 14, kLevel = 1u << 15,
              kMasked = 1u << 16;
constexpr u64 kReadOnly = kStatus | kRemoteIrr;
constexpr u64 kWritable = 0xff00'0000'0001'afff;

unsigned delivery_mode(u64 entry) { return entry >> 8 & 7; }

// Only fixed and lowest-priority interrupts are ended by an EOI; the others are edges whatever the entry says.
bool level_triggered(u64 entry) { return (entry & kLevel) && delivery_mode(entry) <= 1; }

}  // namespace

IoApic::IoApic(MsiSink& sink, u32 wired_low) : sink_{sink}, wired_low_{wired_low} { reset(); }

void IoApic::reset() {
  s_.select = 0;
  s_.view.id = 0;
  s_.view.entries.fill(kMasked);
}

bool IoApic::active(unsigned pin) const {
  const bool inverted = ((s_.view.entries[pin] & kActiveLow) != 0) != (wired_low_ >> pin & 1);
  return ((s_.requests >> pin & 1) != 0) != inverted;
}

void IoApic::set_irq(unsigned pin, bool requested) {
  if (pin >= kPins) return;
  const bool before = active(pin);
  s_.requests = requested ? s_.requests | 1u << pin : s_.requests & ~(1u << pin);
  if (level_triggered(s_.view.entries[pin]))
    serve_level(pin);
  else if (!before && active(pin) &&
           !(s_.view.entries[pin] & kMasked))  // an edge on a masked pin is lost: 82093AA, 3.2.4
    deliver(pin);
}

bool IoApic::rise_matters(unsigned pin) const { return pin < kPins && !(s_.view.entries[pin] & kMasked); }

void IoApic::serve_level(unsigned pin) {
  u64& entry = s_.view.entries[pin];
  if (!level_triggered(entry) || (entry & (kMasked | kRemoteIrr)) || !active(pin)) return;
  entry |= kRemoteIrr;
  deliver(pin);
}

void IoApic::deliver(unsigned pin) {
  const u64 entry = s_.view.entries[pin];
  const Gpa address{0xfee00000 | (entry >> 56) << 12 | (entry & kLogical ? 1u << 2 : 0)};
  u32 data = static_cast<u32>(entry & 0x7ff) | 1u << 14;
  if (level_triggered(entry)) data |= 1u << 15;
  TRACE(interrupts, "ioapic pin {} -> msi {} {:#x}", pin, address, data);
  sink_.msi(address, data);
}

void IoApic::eoi(u8 vector) {
  for (unsigned pin = 0; pin < kPins; pin++) {
    u64& entry = s_.view.entries[pin];
    if ((entry & 0xff) != vector || !(entry & kRemoteIrr)) continue;
    entry &= ~kRemoteIrr;
    serve_level(pin);  // still up: it is due again
  }
}

u64 IoApic::read(u64 offset, unsigned) {
  switch (offset) {
    case kSelect:
      return s_.select;
    case kWindow:
      return s_.view.read(s_.select);
    default:
      return 0;
  }
}

void IoApic::write(u64 offset, unsigned, u64 value) {
  switch (offset) {
    case kSelect:
      s_.select = static_cast<u8>(value);
      break;
    case kWindow:
      write_register(static_cast<u32>(value));
      break;
    case kEoi:
      eoi(static_cast<u8>(value));
      break;
    default:
      break;
  }
}

u32 IoApicView::read(u8 select) const {
  switch (select) {
    case 0:
    case 2:
      return static_cast<u32>(id << 24);
    case 1:
      return kVersion | (kPins - 1) << 16;
    default:
      break;
  }
  const unsigned index = select - 0x10u, pin = index / 2;
  if (select < 0x10 || pin >= kPins) return 0;
  return static_cast<u32>(index & 1 ? entries[pin] >> 32 : entries[pin]);
}

void IoApic::write_register(u32 value) {
  if (s_.select == 0) s_.view.id = value >> 24 & 0x0f;
  const unsigned index = s_.select - 0x10u, pin = index / 2;
  if (s_.select < 0x10 || pin >= kPins) return;
  u64& entry = s_.view.entries[pin];
  const u64 merged =
      index & 1 ? (entry & 0xffffffff) | static_cast<u64>(value) << 32 : (entry & ~u64{0xffffffff}) | value;
  entry = (merged & kWritable) | (entry & kReadOnly);
  if (!level_triggered(entry)) entry &= ~kRemoteIrr;  // edge mode has none: systems clear a stuck one this way
  serve_level(pin);
}

}  // namespace trapline::devices
