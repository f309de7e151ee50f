#include "devices/pic8259.h"

namespace trapline::devices {

// As firmware leaves it: BIOS vectors, all masked. SCI (IRQ 9) is the one level-triggered source of this machine.
void Pic8259::reset() {
  s_.elcr = master_ ? 0x00 : 0x02;
  s_.irr = s_.lines & s_.elcr;
  s_.isr = 0;
  s_.imr = 0xff;
  s_.vector_base = initial_base_;
  s_.lowest = 7;
  s_.icw_expected = 0;
  s_.needs_icw4 = s_.single = s_.auto_eoi = s_.rotate_auto_eoi = s_.special_mask = s_.special_nested = s_.read_isr =
      s_.poll = false;
}

void Pic8259::set_line(unsigned ir, bool up) {
  const u8 bit = static_cast<u8>(1u << (ir & 7));
  if (s_.elcr & bit)
    s_.irr = static_cast<u8>(up ? s_.irr | bit : s_.irr & ~bit);
  else if (up && !(s_.lines & bit))
    s_.irr |= bit;  // the edge latch holds until acknowledged, so that a short pulse is not lost
  s_.lines = static_cast<u8>(up ? s_.lines | bit : s_.lines & ~bit);
}

void Pic8259::set_cascade(bool up) {
  set_line(2, up);
  if (!up) s_.irr &= static_cast<u8>(~(1u << 2));  // the slave took its request back (masked, or polled)
}

void Pic8259::set_level_mode(u8 mask) {
  const u8 now_level = mask & static_cast<u8>(~s_.elcr);
  s_.elcr = mask;
  s_.irr = static_cast<u8>((s_.irr & ~now_level) | (s_.lines & s_.elcr));
}

int Pic8259::highest(u8 set) const {
  int best = -1;
  for (unsigned i = 1; i <= 8 && best < 0; i++) {
    const unsigned ir = (s_.lowest + i) & 7;
    if (set >> ir & 1) best = static_cast<int>(ir);
  }
  return best;
}

int Pic8259::pending() const {
  const int ir = highest(s_.irr & static_cast<u8>(~s_.imr));
  if (ir < 0) return -1;
  u8 blocking = s_.isr;
  if (s_.special_mask) blocking &= static_cast<u8>(~s_.imr);                  // masked levels in service block nothing
  if (s_.special_nested && master_) blocking &= static_cast<u8>(~(1u << 2));  // the slave may interrupt its own service
  const int serving = highest(blocking);
  if (serving >= 0 && rank(static_cast<unsigned>(serving)) <= rank(static_cast<unsigned>(ir))) return -1;
  return ir;
}

void Pic8259::acknowledge(unsigned ir) {
  const u8 bit = static_cast<u8>(1u << (ir & 7));
  if (!(s_.elcr & bit)) s_.irr &= static_cast<u8>(~bit);
  if (!s_.auto_eoi)
    s_.isr |= bit;
  else if (s_.rotate_auto_eoi)
    s_.lowest = ir & 7;
}

u8 Pic8259::poll() {
  s_.poll = false;
  const int ir = pending();
  if (ir < 0) return 0;
  acknowledge(static_cast<unsigned>(ir));
  return static_cast<u8>(0x80 | ir);
}

u8 Pic8259::read(u64 offset) {
  if (s_.poll) return poll();
  if (offset & 1) return s_.imr;
  return s_.read_isr ? s_.isr : s_.irr;
}

void Pic8259::write(u64 offset, u8 value) {
  if (offset & 1)
    write_data(value);
  else if (value & 0x10)
    write_icw1(value);
  else if (value & 0x08)
    write_ocw3(value);
  else
    write_ocw2(value);
}

// ICW1: the edge latches and the mask are cleared; a line must rise anew to request.
void Pic8259::write_icw1(u8 value) {
  s_.irr = s_.lines & s_.elcr;
  s_.isr = s_.imr = 0;
  s_.lowest = 7;
  s_.needs_icw4 = value & 1;
  s_.single = value & 2;
  s_.auto_eoi = s_.rotate_auto_eoi = s_.special_mask = s_.special_nested = s_.read_isr = s_.poll = false;
  s_.icw_expected = 2;
}

void Pic8259::write_data(u8 value) {
  switch (s_.icw_expected) {
    case 2:
      s_.vector_base = value & 0xf8;
      s_.icw_expected = !s_.single ? 3 : s_.needs_icw4 ? 4 : 0;
      break;
    case 3:  // who is cascaded where: fixed by the board
      s_.icw_expected = s_.needs_icw4 ? 4 : 0;
      break;
    case 4:
      s_.auto_eoi = value & 2;
      s_.special_nested = value & 0x10;
      s_.icw_expected = 0;
      break;
    default:
      s_.imr = value;
  }
}

void Pic8259::write_ocw2(u8 value) {
  const bool specific = value & 0x40, eoi = value & 0x20, rotate = value & 0x80;
  if (!eoi) {
    if (specific && rotate)
      s_.lowest = value & 7;  // set priority
    else if (!specific)
      s_.rotate_auto_eoi = rotate;
    return;
  }
  u8 ended = s_.isr;
  if (s_.special_mask && !specific) ended &= static_cast<u8>(~s_.imr);
  const int ir = specific ? value & 7 : highest(ended);
  if (ir < 0) return;
  s_.isr &= static_cast<u8>(~(1u << ir));
  if (rotate) s_.lowest = static_cast<u8>(ir);
}

void Pic8259::write_ocw3(u8 value) {
  if (value & 0x40) s_.special_mask = value & 0x20;
  s_.poll = value & 0x04;
  if (value & 0x02) s_.read_isr = value & 0x01;
}

PicPair::PicPair(IrqLine& intr) : intr_{intr} {}

void PicPair::restore(const State& state) {
  master_.restore(state.master);
  slave_.restore(state.slave);
  intr_up_ = state.intr_up;
}

void PicPair::reset() {
  master_.reset();
  slave_.reset();
  update();
}

void PicPair::set_irq(unsigned irq, bool up) {
  if (irq > 15 || irq == 2) return;
  (irq < 8 ? master_ : slave_).set_line(irq & 7, up);
  update();
}

void PicPair::update() {
  master_.set_cascade(slave_.pending() >= 0);
  const bool up = master_.pending() >= 0;
  if (up == intr_up_) return;
  intr_up_ = up;
  intr_.set(up);
}

u8 PicPair::acknowledge() {
  u8 vector;
  const int ir = master_.pending();
  if (ir < 0) {
    vector = master_.vector_base() + Pic8259::kSpurious;
  } else {
    master_.acknowledge(static_cast<unsigned>(ir));
    vector = static_cast<u8>(master_.vector_base() + ir);
    if (ir == 2) {
      const int slave_ir = slave_.pending();
      if (slave_ir >= 0) slave_.acknowledge(static_cast<unsigned>(slave_ir));
      vector = static_cast<u8>(slave_.vector_base() + (slave_ir < 0 ? static_cast<int>(Pic8259::kSpurious) : slave_ir));
    }
  }
  // INT and the cascade drop during the cycle: what is still pending is a new edge for whoever listens to edges.
  master_.set_cascade(false);
  if (intr_up_) {
    intr_up_ = false;
    intr_.set(false);
  }
  update();
  return vector;
}

u64 PicPair::ChipPort::read(u64 offset, unsigned) {
  const u8 value = chip.read(offset);
  pair.update();  // a poll acknowledges
  return value;
}

void PicPair::ChipPort::write(u64 offset, unsigned, u64 value) {
  chip.write(offset, static_cast<u8>(value));
  pair.update();
}

u64 PicPair::ElcrPort::read(u64 offset, unsigned) {
  return offset & 1 ? pair.slave_.level_mode() : pair.master_.level_mode();
}

void PicPair::ElcrPort::write(u64 offset, unsigned, u64 value) {
  const u8 byte = static_cast<u8>(value);
  if (offset & 1)
    pair.slave_.set_level_mode(byte & 0xde);  // IRQ 8 and 13 are edges for good
  else
    pair.master_.set_level_mode(byte & 0xf8);  // so are 0, 1 and 2
  pair.update();
}

}  // namespace trapline::devices
