// i8042 keyboard controller: self test, controller RAM, output port, CPU reset, and a keyboard if there is one. A byte
// sent to an absent device is answered at once by a time-out, so that no probe waits. Offsets: 0 = port 0x60, 4 = port
// 0x64.
#pragma once

#include <array>
#include <functional>

#include "devices/device.h"
#include "devices/ps2_keyboard.h"

namespace trapline::devices {

class I8042 final : public Device {
 public:
  struct State {
    std::array<u8, 32> ram{};  // [0] is the command byte
    u8 status = 0, output = 0, output_port = 3;
    u8 pending_command = 0;  // waits for its data byte; 0: none
    bool release = false;    // the translation has seen F0
    Ps2Keyboard::State keyboard;
    bool operator==(const State&) const = default;
  };
  State save() const;
  void restore(const State& state);

  I8042(IrqLine& irq1, IrqLine& irq12, std::function<void()> reset_cpu, bool has_keyboard = false);

  // Types a terminal's bytes (terminal_keys.h); returns how many.
  std::size_t type(const u8* bytes, std::size_t count);
  bool can_type() const { return has_keyboard_ && keyboard_.has_room(); }

  const char* name() const override { return "i8042"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

 private:
  void command(u8 value);
  void data(u8 value);
  void answer(u8 value, u8 status = 0);
  void write_output_port(u8 value);
  void update_irq();
  void fetch();

  IrqLine& irq1_;
  IrqLine& irq12_;
  std::function<void()> reset_cpu_;
  const bool has_keyboard_;
  Ps2Keyboard keyboard_;
  State s_;
};

}  // namespace trapline::devices
