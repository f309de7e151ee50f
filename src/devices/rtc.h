// Motorola MC146818 real-time clock with the 128 bytes of battery-backed RAM of a PC, at ports 0x70 (index) and 0x71
// (data).
//
// Time is computed from guest time when somebody looks. A source that has set its flag has no further deadline until
// register C was read: a guest that does not answer costs nothing.
#pragma once

#include <array>

#include "devices/device.h"

namespace trapline::devices {

class Rtc final : public Device {
 public:
  Rtc(IrqLine& irq8, TimeSource& time);

  const char* name() const override { return "rtc"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  u64 deadline_ns() const override { return deadline_; }
  void tick() override;
  void reset() override;

  // What firmware leaves behind for the operating system (memory sizes, for instance).
  void store(u8 index, u8 value) { ram_[index & 0x7f] = value; }
  u8 stored(u8 index) const { return ram_[index & 0x7f]; }

 private:
  u64 now_ns() const;
  u64 seconds() const;         // whole seconds that have passed on the divider chain
  u64 periodic_count() const;  // periods that have passed; 0 when the rate is 0
  bool halted() const;         // SET, or the divider chain in reset
  void fill_time();            // brings the time registers up to date
  void take_time();            // the time registers were written: they are the time now
  void collect_flags();
  void update_irq();
  void rearm();
  u64 next_alarm() const;  // in seconds(), or kNever
  u8 encode(unsigned v) const;
  unsigned decode(u8 v) const;
  u8 encode_hour(unsigned h) const;
  unsigned decode_hour(u8 v) const;
  u8 read_register(u8 index);
  void write_register(u8 index, u8 value);

  IrqLine& irq_;
  TimeSource& time_;
  std::array<u8, 128> ram_{};
  u8 index_ = 0;
  u64 phase_ns_ = 0;  // guest time at which the divider chain started
  i64 base_ = 0;      // Unix time at phase_ns_
  u64 updates_seen_ = 0, periods_seen_ = 0;
  u64 alarm_at_ = kNever;  // in seconds()
  u64 deadline_ = kNever;
};

}  // namespace trapline::devices
