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
  write_high_ = false;
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

u8 PitCounter::status(u64 now) const {
  const bool null_count = !loaded_ || pending_ || (running_ && now < start_);
  return static_cast<u8>((output(now) ? 0x80 : 0) | (null_count ? 0x40 : 0) | access_ << 4 | mode_ << 1 |
                         (bcd_ ? 1 : 0));
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

bool PitReader::command(u8 byte, Counters& counters, u64 now) {
  const unsigned select = byte >> 6;
  // Read-back: bits 5 and 4, low-active, say what; bits 3:1 which counters. Else a count latch of one counter.
  const bool read_back = select == 3;
  if (!read_back && (byte & 0x30) != 0) return false;
  for (unsigned i = 0; i < latches_.size(); i++) {
    if (read_back ? !(byte >> (i + 1) & 1) : i != select) continue;
    Latch& latch = latches_[i];
    counters[i].settle(now);
    if (!latch.count_held && (!read_back || !(byte & 0x20))) {  // the first latch holds until it has been read
      latch.count_held = true;
      latch.count = counters[i].count(now);
      latch.access = counters[i].access();
    }
    if (!latch.status_held && read_back && !(byte & 0x10)) {
      latch.status_held = true;
      latch.status = counters[i].status(now);
    }
  }
  return true;
}

u8 PitReader::next_byte(Latch& latch, u16 value, u8 access) {
  const bool high = access == 2 || (access == 3 && latch.read_high);
  if (access == 3) latch.read_high = !latch.read_high;
  if (access != 3 || high) latch.count_held = false;
  return static_cast<u8>(high ? value >> 8 : value);
}

std::optional<u8> PitReader::read_latched(unsigned counter) {
  Latch& latch = latches_[counter];
  if (latch.status_held) {
    latch.status_held = false;
    return latch.status;
  }
  if (!latch.count_held) return std::nullopt;
  return next_byte(latch, latch.count, latch.access);
}

u8 PitReader::read(unsigned counter, Counters& counters, u64 now) {
  if (const auto latched = read_latched(counter)) return *latched;
  counters[counter].settle(now);
  return next_byte(latches_[counter], counters[counter].count(now), counters[counter].access());
}

u8 read_port61(u8 low_bits, PitCounter counter2, u64 guest_ns) {
  const u64 now = pit_ticks(guest_ns);
  counter2.settle(now);
  const bool refresh = guest_ns / kRefreshToggleNs & 1;
  return static_cast<u8>(low_bits | (refresh ? 0x10 : 0) | (counter2.output(now) ? 0x20 : 0));
}

Pit8254::Pit8254(IrqLine& irq0, TimeSource& time) : irq_{irq0}, time_{time} { s_.counters[2].set_gate(false, 0); }

u64 Pit8254::now_ticks() const { return pit_ticks(time_.now_ns()); }

void Pit8254::reset() {
  for (PitCounter& c : s_.counters) c.reset();
  s_.reader.reset();
  port61_.reset();
  s_.counters[2].set_gate(false, now_ticks());
  s_.deadline = kNever;
  irq_.set(false);
}

u64 Pit8254::read(u64 offset, unsigned) {
  if (offset >= 3) return 0xff;  // the control word cannot be read
  return s_.reader.read(static_cast<unsigned>(offset), s_.counters, now_ticks());
}

void Pit8254::write(u64 offset, unsigned, u64 value) {
  const u8 byte = static_cast<u8>(value);
  const u64 now = now_ticks();
  if (offset < 3) {
    s_.counters[offset].write(byte, now);
    if (offset == 0) rearm(now);
    return;
  }
  if (s_.reader.command(byte, s_.counters, now)) return;
  const unsigned select = byte >> 6;
  s_.counters[select].write_control(byte, now);
  s_.reader.programmed(select);
  if (select == 0) rearm(now);
}

void Pit8254::rearm(u64 after) {
  // A periodic count holds the line up between its edges; a new count must not make one more.
  if (!s_.counters[0].repeating()) irq_.set(s_.counters[0].output(after));
  s_.counters[0].settle(after);
  const u64 rise = s_.counters[0].next_rise(after);
  s_.deadline = rise == kNever ? kNever : ticks_to_ns_up(rise);
}

// However many periods have passed, one edge: an interrupt controller would have merged them too.
void Pit8254::tick() {
  const u64 now_ns = time_.now_ns();
  if (now_ns < s_.deadline) return;
  const u64 now = now_ticks();
  irq_.set(false);
  irq_.set(true);
  s_.counters[0].settle(now);
  const u64 rise = s_.counters[0].next_rise(now);
  s_.deadline = rise == kNever ? kNever : std::max(ticks_to_ns_up(rise), now_ns + kMinInterruptGapNs);
}

u64 Pit8254::Port61::read(u64, unsigned) {
  return read_port61(pit.s_.port61_low, pit.s_.counters[2], pit.time_.now_ns());
}

void Pit8254::Port61::write(u64, unsigned, u64 value) {
  pit.s_.port61_low = value & 0x0f;
  pit.s_.counters[2].set_gate(value & 1, pit.now_ticks());
}

}  // namespace trapline::devices
