#include "devices/pit8254.h"

#include <algorithm>

namespace trapline::devices {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;
// A guest may ask for over half a million interrupts per second. It gets no more than this: the rest would only be lost
// anyway.
constexpr u64 kMinInterruptGapNs = 50'000;
constexpr u64 kRefreshToggleNs = 15'085;

u64 ticks_to_ns_up(u64 ticks) {
  const u128 ns = (static_cast<u128>(ticks) * kNsPerSecond + kPitHz - 1) / kPitHz;
  return ns >= kNever ? kNever : static_cast<u64>(ns);
}

u16 from_bcd(u16 v) {
  // Digits above 9 are undefined; they count as what they say.
  return static_cast<u16>((v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15));
}
u16 to_bcd(u16 v) { return static_cast<u16>(v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10); }

}  // namespace

void PitCounter::reset() {
  const bool gate = gate_;
  *this = PitCounter{};
  gate_ = gate;
}

// 0 means the largest count. Modes 2 and 3 cannot count 1.
u64 PitCounter::period() const {
  const u64 n = bcd_ ? from_bcd(reload_) : reload_;
  if (n == 0) return modulus();
  return periodic() ? std::max<u64>(n, 2) : n;
}

u64 PitCounter::elapsed(u64 now) const {
  if (!running_) return paused_at_;
  return now < start_ ? 0 : now - start_;
}

void PitCounter::write_control(u8 control, u64 now) {
  settle(now);
  access_ = control >> 4 & 3;
  mode_ = control >> 1 & 7;
  if (mode_ > 5) mode_ -= 4;  // bit 2 of modes 2 and 3 is ignored
  bcd_ = control & 1;
  programmed_ = true;
  loaded_ = running_ = pending_ = false;
  paused_at_ = 0;
  write_high_ = read_high_ = count_latched_ = status_latched_ = false;
}

void PitCounter::load(u16 value, u64 now) {
  if (periodic() && loaded_ && running_) {
    settle(now);
    pending_ = true;
    pending_reload_ = value;
    pending_from_ = start_ + (elapsed(now) / period() + 1) * period();
    return;
  }
  if (triggered_by_gate() && running_) {
    pending_ = true;
    pending_reload_ = value;
    pending_from_ = kNever;  // takes effect at the next trigger
    return;
  }
  reload_ = value;
  loaded_ = true;
  pending_ = false;
  paused_at_ = 0;
  running_ = gate_ && !triggered_by_gate();
  start_ = now + 1;  // the count enters the counting element with the next clock
}

void PitCounter::settle(u64 now) {
  if (!pending_ || now < pending_from_) return;
  pending_ = false;
  reload_ = pending_reload_;
  start_ = pending_from_;
}

void PitCounter::set_gate(bool up, u64 now) {
  settle(now);
  if (up == gate_) return;
  gate_ = up;
  if (!loaded_) return;
  if (triggered_by_gate()) {
    if (!up) return;  // the fall does nothing
    if (pending_) reload_ = pending_reload_;
    pending_ = false;
    running_ = true;
    start_ = now + 1;
    return;
  }
  if (!up) {
    paused_at_ = elapsed(now);
    running_ = false;
    return;
  }
  if (pending_) reload_ = pending_reload_;
  pending_ = false;
  running_ = true;
  start_ = periodic() ? now + 1 : now - std::min(now, paused_at_);  // modes 2 and 3 restart, 0 and 4 go on
}

u16 PitCounter::count(u64 now) const {
  const u64 n = period(), t = elapsed(now);
  u64 value;
  if (!loaded_ || (triggered_by_gate() && !running_))
    value = n;
  else if (mode_ == 2)
    value = n - t % n;
  else if (mode_ == 3)
    value = (n & ~u64{1}) - 2 * (t % n) % (n & ~u64{1});  // by twos, and twice per period
  else
    value = (n + modulus() - t % modulus()) % modulus();  // goes on below zero
  value %= modulus();
  return bcd_ ? to_bcd(static_cast<u16>(value)) : static_cast<u16>(value);
}

bool PitCounter::output(u64 now) const {
  if (!programmed_) return false;
  const u64 n = period(), t = elapsed(now);
  switch (mode_) {
    case 0:
      return loaded_ && t >= n;
    case 1:
      return !running_ || t >= n;
    case 2:
      return !running_ || t % n != n - 1;
    case 3:
      return !running_ || t % n < (n + 1) / 2;
    default:
      return !running_ || t != n;  // 4, 5: a strobe of one clock
  }
}

u64 PitCounter::next_rise(u64 after) const {
  if (!loaded_ || !running_) return kNever;
  const u64 n = period();
  if (periodic()) {
    return start_ + (after < start_ ? 1 : (after - start_) / n + 1) * n;  // a pending count takes over at such a rise
  }
  const u64 rise = start_ + n + (mode_ >= 4 ? 1 : 0);
  return rise > after ? rise : kNever;
}

void PitCounter::latch_count(u64 now) {
  if (count_latched_) return;  // the first latch holds until it has been read
  settle(now);
  count_latched_ = true;
  latched_count_ = count(now);
}

void PitCounter::latch_status(u64 now) {
  if (status_latched_) return;
  settle(now);
  status_latched_ = true;
  const bool null_count = !loaded_ || pending_ || (running_ && now < start_);
  latched_status_ =
      static_cast<u8>((output(now) ? 0x80 : 0) | (null_count ? 0x40 : 0) | access_ << 4 | mode_ << 1 | (bcd_ ? 1 : 0));
}

void PitCounter::write(u8 byte, u64 now) {
  settle(now);
  if (!programmed_) return;
  switch (access_) {
    case 1:
      load(byte, now);
      return;
    case 2:
      load(static_cast<u16>(byte << 8), now);
      return;
    default:
      break;
  }
  if (!write_high_) {
    write_low_ = byte;
    write_high_ = true;
    if (mode_ == 0) loaded_ = running_ = false, paused_at_ = 0;  // the first byte stops the count, OUT goes low
    return;
  }
  write_high_ = false;
  load(static_cast<u16>(byte << 8 | write_low_), now);
}

u8 PitCounter::read(u64 now) {
  if (status_latched_) {
    status_latched_ = false;
    return latched_status_;
  }
  settle(now);
  const u16 value = count_latched_ ? latched_count_ : count(now);
  const bool high = access_ == 2 || (access_ == 3 && read_high_);
  if (access_ == 3) read_high_ = !read_high_;
  if (access_ != 3 || high) count_latched_ = false;
  return static_cast<u8>(high ? value >> 8 : value);
}

Pit8254::Pit8254(IrqLine& irq0, TimeSource& time) : irq_{irq0}, time_{time} { counters_[2].set_gate(false, 0); }

u64 Pit8254::now_ticks() const { return static_cast<u64>(static_cast<u128>(time_.now_ns()) * kPitHz / kNsPerSecond); }

void Pit8254::reset() {
  for (PitCounter& c : counters_) c.reset();
  port61_.reset();
  counters_[2].set_gate(false, now_ticks());
  deadline_ = kNever;
  irq_.set(false);
}

u64 Pit8254::read(u64 offset, unsigned) {
  if (offset >= 3) return 0xff;  // the control word cannot be read
  return counters_[offset].read(now_ticks());
}

void Pit8254::write(u64 offset, unsigned, u64 value) {
  const u8 byte = static_cast<u8>(value);
  const u64 now = now_ticks();
  if (offset < 3) {
    counters_[offset].write(byte, now);
    if (offset == 0) rearm(now);
    return;
  }
  const unsigned select = byte >> 6;
  if (select == 3) {  // read-back: bits 5 and 4, low-active, say what; bits 3:1 which counters
    for (unsigned i = 0; i < 3; i++) {
      if (!(byte >> (i + 1) & 1)) continue;
      if (!(byte & 0x20)) counters_[i].latch_count(now);
      if (!(byte & 0x10)) counters_[i].latch_status(now);
    }
  } else if ((byte & 0x30) == 0) {
    counters_[select].latch_count(now);
  } else {
    counters_[select].write_control(byte, now);
    if (select == 0) rearm(now);
  }
}

void Pit8254::rearm(u64 after) {
  // A periodic count holds the line up between its edges; a new count must not make one more.
  if (!counters_[0].repeating()) irq_.set(counters_[0].output(after));
  counters_[0].settle(after);
  const u64 rise = counters_[0].next_rise(after);
  deadline_ = rise == kNever ? kNever : ticks_to_ns_up(rise);
}

// However many periods have passed, one edge: an interrupt controller would have merged them too.
void Pit8254::tick() {
  const u64 now_ns = time_.now_ns();
  if (now_ns < deadline_) return;
  const u64 now = now_ticks();
  irq_.set(false);
  irq_.set(true);
  counters_[0].settle(now);
  const u64 rise = counters_[0].next_rise(now);
  deadline_ = rise == kNever ? kNever : std::max(ticks_to_ns_up(rise), now_ns + kMinInterruptGapNs);
}

u64 Pit8254::Port61::read(u64, unsigned) {
  const u64 ns = pit.time_.now_ns();
  const bool refresh = ns / kRefreshToggleNs & 1;
  const bool out2 = pit.counters_[2].output(pit.now_ticks());
  return static_cast<u64>(low_bits | (refresh ? 0x10 : 0) | (out2 ? 0x20 : 0));
}

void Pit8254::Port61::write(u64, unsigned, u64 value) {
  low_bits = value & 0x0f;
  pit.counters_[2].set_gate(value & 1, pit.now_ticks());
}

}  // namespace trapline::devices
