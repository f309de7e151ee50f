// The small ports of a PC's board: fast A20 and reset (0x92), reset control (0xcf9), POST codes and DMA page registers
// (0x80..0x8f), the numeric error's (0xf0), a CRT controller's registers (0x3d4), and QEMU's isa-debug-exit.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>

#include "base/trace.h"
#include "devices/device.h"

namespace trapline::devices {

// Port 0x92: bit 0 resets the CPU on its rise, bit 1 is A20, which is stored and has no effect: addresses never wrap at
// 1 MiB.
class SystemControlA final : public Device {
 public:
  struct State {
    u8 value = 2;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  explicit SystemControlA(std::function<void()> reset_cpu) : reset_cpu_{std::move(reset_cpu)} {}
  const char* name() const override { return "port92"; }
  u64 read(u64, unsigned) override { return s_.value; }
  void write(u64, unsigned, u64 value) override {
    const bool rose = (value & 1) && !(s_.value & 1);
    s_.value = value & 3;
    if (rose) reset_cpu_();
  }
  void reset() override { s_.value = 2; }

 private:
  std::function<void()> reset_cpu_;
  State s_;
};

// Port 0xcf9: bit 2 resets on its rise. Bits 1 (hard) and 3 (power cycle) say how; all are the same here.
class ResetControl final : public Device {
 public:
  struct State {
    u8 value = 0;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  explicit ResetControl(std::function<void()> reset_machine) : reset_machine_{std::move(reset_machine)} {}
  const char* name() const override { return "reset-control"; }
  u64 read(u64, unsigned) override { return s_.value; }
  void write(u64, unsigned, u64 value) override {
    const bool rose = (value & 4) && !(s_.value & 4);
    s_.value = value & 0x0e;
    if (rose) reset_machine_();
  }
  void reset() override { s_.value = 0; }

 private:
  std::function<void()> reset_machine_;
  State s_;
};

// Ports 0x80..0x8f: memory without meaning. 0x80 takes POST codes and I/O delays.
class PostPorts final : public Device {
 public:
  struct State {
    std::array<u8, 16> bytes{};
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  const char* name() const override { return "post"; }
  u64 read(u64 offset, unsigned) override { return s_.bytes[offset & 15]; }
  void write(u64 offset, unsigned, u64 value) override { s_.bytes[offset & 15] = static_cast<u8>(value); }
  void reset() override { s_.bytes.fill(0); }

 private:
  State s_;
};

// Port 0x402, where SeaBIOS writes its log if a read says E9: lines of the trace.
class FirmwareLog final : public Device {
 public:
  static constexpr u16 kPort = 0x402;
  const char* name() const override { return "firmware-log"; }
  u64 read(u64, unsigned) override { return 0xe9; }
  void write(u64, unsigned, u64 value) override {
    constexpr std::size_t kLongest = 200;
    const char c = static_cast<char>(value);
    if (c >= ' ' && c < 0x7f) line_ += c;
    if (c != '\n' && line_.size() < kLongest) return;
    TRACE(boot, "firmware: {}", line_);
    line_.clear();
  }
  void reset() override { line_.clear(); }

 private:
  std::string line_;
};

// Ports 0x3d4 and 0x3d5: the index and data registers of a colour display's CRT controller. There is no display; text
// consoles that keep their cursor in registers 14 and 15 read back what they wrote.
class CrtController final : public Device {
 public:
  struct State {
    std::array<u8, 25> registers{};  // as many as a VGA has
    u8 index = 0;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  const char* name() const override { return "crtc"; }
  u64 read(u64 offset, unsigned) override {
    if (offset == 0) return s_.index;
    return s_.index < s_.registers.size() ? s_.registers[s_.index] : 0xff;
  }
  void write(u64 offset, unsigned, u64 value) override {
    if (offset == 0)
      s_.index = static_cast<u8>(value);
    else if (s_.index < s_.registers.size())
      s_.registers[s_.index] = static_cast<u8>(value);
  }
  void reset() override {
    s_.registers.fill(0);
    s_.index = 0;
  }

 private:
  State s_;
};

// The latch between the processor's FERR# and IRQ 13 (PC/AT). Any write to port 0xf0 takes the interrupt back and
// raises IGNNE#, under which the processor goes on until the error is cleared: the CPU model does so anyway once the
// error is reported. 0xf1 resets a coprocessor that is none of its own.
class NumericError final : public Device {
 public:
  explicit NumericError(IrqLine& irq13) : irq_{irq13} {}
  const char* name() const override { return "numeric-error"; }
  void report() { irq_.set(true); }
  u64 read(u64, unsigned) override { return 0xff; }
  void write(u64, unsigned, u64) override { irq_.set(false); }
  void reset() override { irq_.set(false); }

 private:
  IrqLine& irq_;
};

// Ports 0xf4..0xf7: any write ends the machine with a code of the guest's choice.
class DebugExit final : public Device {
 public:
  explicit DebugExit(std::function<void(u32)> leave) : leave_{std::move(leave)} {}
  const char* name() const override { return "debug-exit"; }
  u64 read(u64, unsigned) override { return 0; }
  void write(u64, unsigned, u64 value) override { leave_(static_cast<u32>(value)); }
  void reset() override {}

 private:
  std::function<void(u32)> leave_;
};

}  // namespace trapline::devices
