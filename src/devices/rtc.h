// Motorola MC146818 real-time clock with the 128 bytes of battery-backed RAM of a PC, at ports 0x70 (index) and 0x71
// (data).
//
// Time is computed from guest time when somebody looks. A source that has set its flag has no further deadline until
// register C was read: a guest that does not answer costs nothing.
#pragma once

#include <array>
#include <functional>
#include <type_traits>

#include "devices/device.h"

namespace trapline::devices {

// The registers and the divider chain: all that reads need, but for register C. Plain bytes: copies go to the core.
struct RtcState {
  static constexpr u8 kRegisterC = 12;

  std::array<u8, 128> ram{};
  u64 phase_ns = 0;  // guest time at which the divider chain started
  i64 base = 0;      // Unix time at phase_ns

  u64 passed_ns(u64 guest_ns) const;  // on the divider chain
  u64 seconds(u64 guest_ns) const;    // whole ones of these
  bool halted() const;                // SET, or the divider chain in reset
  u8 encode(unsigned v) const;
  unsigned decode(u8 v) const;
  u8 encode_hour(unsigned h) const;
  unsigned decode_hour(u8 v) const;
  void fill_time(u64 guest_ns);     // brings the time registers up to date
  u8 read(u8 index, u64 guest_ns);  // what has no effect: any register but C
  bool operator==(const RtcState&) const = default;
};
static_assert(std::has_unique_object_representations_v<RtcState>);

class Rtc final : public Device {
 public:
  // Times are guest time.
  struct State {
    RtcState clock;
    u8 index = 0;
    u64 updates_seen = 0, periods_seen = 0;
    u64 alarm_at = kNever;  // in seconds()
    u64 deadline = kNever;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  // `alarm`: it has come, and was asked for as an interrupt.
  Rtc(IrqLine& irq8, TimeSource& time, std::function<void()> alarm = {});

  const char* name() const override { return "rtc"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  u64 deadline_ns() const override { return s_.deadline; }
  void tick() override;
  void reset() override;

  // What firmware leaves behind for the operating system (memory sizes, for instance).
  void store(u8 index, u8 value) { s_.clock.ram[index & 0x7f] = value; }
  u8 stored(u8 index) const { return s_.clock.ram[index & 0x7f]; }
  const RtcState& view() const { return s_.clock; }

 private:
  u64 seconds() const { return s_.clock.seconds(time_.now_ns()); }
  u64 periodic_count() const;  // periods that have passed; 0 when the rate is 0
  void take_time();            // the time registers were written: they are the time now
  void collect_flags();
  void update_irq();
  void rearm();
  u64 next_alarm() const;  // in seconds(), or kNever
  u8 read_flags();         // register C
  void write_register(u8 index, u8 value);

  IrqLine& irq_;
  TimeSource& time_;
  std::function<void()> alarm_;
  State s_;
};

}  // namespace trapline::devices
