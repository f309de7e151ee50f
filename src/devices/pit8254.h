// The 8254 interval timer of a PC (Intel 8254 data sheet) and the system control port 0x61 that gates its third
// counter.
//
// Nothing counts: a counter's value is computed from guest time when somebody looks. Counter 0 drives IRQ 0, counter 1
// (DRAM refresh) exists for software that reads it, counter 2 has a gate and an output at port 0x61.
//
// Counting and reading are apart: a counter (PitCounter) changes by control words, counts and the gate alone; latches
// and the order of bytes belong to who reads (PitReader). So a copy of the counters is all that another process needs
// to answer reads.
#pragma once

#include <array>
#include <optional>
#include <type_traits>

#include "base/scaled.h"
#include "devices/device.h"

namespace trapline::devices {

inline constexpr u64 kPitHz = 1'193'182;

constexpr u64 pit_ticks(u64 guest_ns) { return scaled(guest_ns, kPitHz, 1'000'000'000); }

// One counter. Times are absolute ticks of the 1.193182 MHz clock. Plain bytes without gaps: copies go to the core.
class PitCounter {
 public:
  void reset();
  void write_control(u8 control, u64 now);  // read/load, mode and BCD bits of a control word
  void write(u8 byte, u64 now);
  u16 count(u64 now) const;  // settled
  u8 status(u64 now) const;  // settled; as a read-back command latches it
  u8 access() const { return access_; }
  void set_gate(bool up, u64 now);
  bool gate() const { return gate_; }
  bool output(u64 now) const;
  bool repeating() const { return periodic() && loaded_; }
  void settle(u64 now);  // a new count of modes 2 and 3 takes over at the end of the period
  // The first tick after `after` (settled) at which OUT rises, or kNever.
  u64 next_rise(u64 after) const;
  bool operator==(const PitCounter&) const = default;

 private:
  u64 modulus() const { return bcd_ ? 10000 : 65536; }
  u64 period() const;
  u64 elapsed(u64 now) const;
  void load(u16 value, u64 now);
  bool periodic() const { return mode_ == 2 || mode_ == 3; }
  bool triggered_by_gate() const { return mode_ == 1 || mode_ == 5; }

  u64 start_ = 0;      // the tick at which the present run began
  u64 paused_at_ = 0;  // elapsed ticks when the gate went down
  u64 pending_from_ = 0;
  u16 reload_ = 0, pending_reload_ = 0;
  u8 mode_ = 0, access_ = 3;
  bool bcd_ = false, gate_ = true;
  bool programmed_ = false;  // a control word has come
  bool loaded_ = false;      // a count has come since
  bool running_ = false;     // loaded, gate up, triggered where the mode needs that
  bool pending_ = false;
  bool write_high_ = false;
  u8 write_low_ = 0;
  u8 unused_[2] = {};
};
static_assert(std::has_unique_object_representations_v<PitCounter>);

// How the counters are read: count and status latches, low and high byte in turn.
class PitReader {
 public:
  using Counters = std::array<PitCounter, 3>;
  // A byte for the control port. True: it was a latch or read-back command, and done. False: it is a control word.
  bool command(u8 byte, Counters& counters, u64 now);
  // A control word has come for this counter: what was latched is gone.
  void programmed(unsigned counter) { latches_[counter] = {}; }
  u8 read(unsigned counter, Counters& counters, u64 now);
  // The next byte of what is latched, which depends on neither the counters nor the time. Nothing: read() has it.
  std::optional<u8> read_latched(unsigned counter);
  void reset() { latches_ = {}; }
  bool operator==(const PitReader&) const = default;

 private:
  struct Latch {
    bool count_held = false, status_held = false, read_high = false;
    u16 count = 0;
    u8 status = 0, access = 3;  // of the counter, as the count was latched
    bool operator==(const Latch&) const = default;
  };
  static u8 next_byte(Latch& latch, u16 value, u8 access);
  std::array<Latch, 3> latches_;
};

// Port 0x61 as it reads: gate and speaker enable below, refresh toggle (bit 4), counter 2's output (bit 5).
u8 read_port61(u8 low_bits, PitCounter counter2, u64 guest_ns);

// What reads need. Copied to the core.
struct PitView {
  PitReader::Counters counters;
  u64 port61_low = 0;
};
static_assert(std::has_unique_object_representations_v<PitView>);

class Pit8254 final : public Device {
 public:
  // Times are guest time.
  struct State {
    PitReader::Counters counters;
    PitReader reader;
    u8 port61_low = 0;  // bits 3:0 of port 0x61
    u64 deadline = kNever;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  Pit8254(IrqLine& irq0, TimeSource& time);

  const char* name() const override { return "pit"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  u64 deadline_ns() const override { return s_.deadline; }
  void tick() override;
  void reset() override;

  Device& control_port() { return port61_; }
  PitView view() const { return {s_.counters, s_.port61_low}; }

 private:
  struct Port61 final : Device {
    explicit Port61(Pit8254& p) : pit{p} {}
    const char* name() const override { return "port61"; }
    u64 read(u64, unsigned) override;
    void write(u64, unsigned, u64 value) override;
    void reset() override { pit.s_.port61_low = 0; }
    Pit8254& pit;
  };

  u64 now_ticks() const;
  void rearm(u64 after);

  IrqLine& irq_;
  TimeSource& time_;
  Port61 port61_{*this};
  State s_;
};

}  // namespace trapline::devices
