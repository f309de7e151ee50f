// i8042 keyboard controller with nothing plugged in: self test, controller RAM, output port, CPU reset. A byte sent to
// either absent device is answered at once by a time-out, so that no probe waits. Offsets: 0 = port 0x60, 4 = port
// 0x64.
#pragma once

#include <array>
#include <functional>

#include "devices/device.h"

namespace trapline::devices {

class I8042 final : public Device {
 public:
  struct State {
    std::array<u8, 32> ram{};  // [0] is the command byte
    u8 status = 0, output = 0, output_port = 3;
    u8 pending_command = 0;  // waits for its data byte; 0: none
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  I8042(IrqLine& irq1, IrqLine& irq12, std::function<void()> reset_cpu);

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

  IrqLine& irq1_;
  IrqLine& irq12_;
  std::function<void()> reset_cpu_;
  State s_;
};

}  // namespace trapline::devices
