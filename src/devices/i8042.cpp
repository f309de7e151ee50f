#include "devices/i8042.h"

#include <utility>

#include "devices/terminal_keys.h"

namespace trapline::devices {

namespace {

constexpr u8 kOutputFull = 0x01, kSystem = 0x04, kCommand = 0x08, kUnlocked = 0x10, kAux = 0x20, kTimeout = 0x40;
constexpr u8 kIrq1 = 0x01, kIrq12 = 0x02, kAuxOff = 0x20, kKeyboardOff = 0x10, kTranslate = 0x40;  // command byte
constexpr u8 kNoDevice = 0xfe, kReleased = 0xf0;
constexpr u8 kOutputReset = 0x01, kOutputA20 = 0x02;

}  // namespace

I8042::I8042(IrqLine& irq1, IrqLine& irq12, std::function<void()> reset_cpu, bool has_keyboard)
    : irq1_{irq1}, irq12_{irq12}, reset_cpu_{std::move(reset_cpu)}, has_keyboard_{has_keyboard} {
  reset();
}

I8042::State I8042::save() const {
  State s = s_;
  s.keyboard = keyboard_.save();
  return s;
}

void I8042::restore(const State& state) {
  s_ = state;
  keyboard_.restore(state.keyboard);
}

void I8042::reset() {
  keyboard_.reset();
  s_.release = false;
  for (u8& byte : s_.ram) byte = 0;
  s_.ram[0] = kSystem | kAuxOff | kKeyboardOff;
  s_.status = kSystem | kUnlocked;
  s_.output = 0;
  s_.output_port = kOutputReset | kOutputA20;
  s_.pending_command = 0;
  update_irq();
}

void I8042::answer(u8 value, u8 status) {
  s_.output = value;
  s_.status = static_cast<u8>((s_.status & ~(kAux | kTimeout)) | kOutputFull | status);
  update_irq();
}

void I8042::update_irq() {
  const bool full = s_.status & kOutputFull, aux = s_.status & kAux;
  irq1_.set(full && !aux && (s_.ram[0] & kIrq1));
  irq12_.set(full && aux && (s_.ram[0] & kIrq12));
}

// A byte of the keyboard's, once the last one has been read. Translated it is set 1, where F0 becomes bit 7 of what
// follows.
void I8042::fetch() {
  while (has_keyboard_ && !(s_.status & kOutputFull) && !(s_.ram[0] & kKeyboardOff) && keyboard_.has_byte()) {
    const u8 byte = keyboard_.take();
    if (!(s_.ram[0] & kTranslate)) return answer(byte);
    if (byte == kReleased) {
      s_.release = true;
      continue;
    }
    answer(static_cast<u8>(set1_of(byte) | (s_.release ? 0x80 : 0)));
    s_.release = false;
  }
}

std::size_t I8042::type(const u8* bytes, std::size_t count) {
  const std::size_t typed = has_keyboard_ ? type_bytes(keyboard_, bytes, count) : 0;
  fetch();
  return typed;
}

u64 I8042::read(u64 offset, unsigned) {
  if (offset == 4) return s_.status;
  if (offset != 0) return 0xff;
  const u8 byte = s_.output;
  s_.status &= static_cast<u8>(~(kOutputFull | kAux | kTimeout));
  update_irq();
  fetch();
  return byte;
}

void I8042::write(u64 offset, unsigned, u64 value) {
  if (offset == 4)
    command(static_cast<u8>(value));
  else if (offset == 0)
    data(static_cast<u8>(value));
  fetch();
}

void I8042::command(u8 value) {
  s_.status |= kCommand;
  s_.pending_command = 0;
  if (value >= 0xf0) {  // pulse the output-port bits that are 0; bit 0 is the CPU's reset
    if (!(value & 1)) reset_cpu_();
    return;
  }
  if (value >= 0x20 && value <= 0x3f) return answer(s_.ram[value & 31]);
  switch (value) {
    case 0xa7:
      s_.ram[0] |= kAuxOff;
      break;
    case 0xa8:
      s_.ram[0] &= static_cast<u8>(~kAuxOff);
      break;
    case 0xa9:
      answer(0x02);
      break;  // auxiliary interface test: the clock line is stuck high, nothing pulls it
    case 0xaa:
      answer(0x55);
      break;  // self test passed
    case 0xab:
      answer(0x00);
      break;  // keyboard interface test passed
    case 0xad:
      s_.ram[0] |= kKeyboardOff;
      break;
    case 0xae:
      s_.ram[0] &= static_cast<u8>(~kKeyboardOff);
      break;
    case 0xc0:
      answer(0x80);
      break;  // input port: keyboard not locked
    case 0xd0:
      answer(s_.output_port);
      break;
    case 0xdd:
      s_.output_port &= static_cast<u8>(~kOutputA20);
      break;
    case 0xdf:
      s_.output_port |= kOutputA20;
      break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
      s_.pending_command = value;
      break;
    default:
      if (value >= 0x60 && value <= 0x7f) s_.pending_command = value;
  }
}

void I8042::data(u8 value) {
  s_.status &= static_cast<u8>(~kCommand);
  const u8 command = std::exchange(s_.pending_command, 0);
  switch (command) {
    case 0:  // for the keyboard
      if (!has_keyboard_) return answer(kNoDevice, kTimeout);
      s_.ram[0] &= static_cast<u8>(~kKeyboardOff);  // its clock runs again
      keyboard_.receive(value);
      break;
    case 0xd1:
      write_output_port(value);
      break;
    case 0xd2:
    case 0xd3:
      answer(value);
      break;  // the auxiliary loop comes back as keyboard data: there is no such port
    case 0xd4:
      answer(kNoDevice, kTimeout | kAux);
      break;
    default:  // 0x60..0x7f
      s_.ram[command & 31] = value;
      update_irq();
  }
}

void I8042::write_output_port(u8 value) {
  s_.output_port = value;
  if (!(value & kOutputReset)) reset_cpu_();
}

}  // namespace trapline::devices
