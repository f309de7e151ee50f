#include "devices/rtc.h"

#include <algorithm>
#include <utility>

namespace trapline::devices {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;
constexpr u64 kUpdateWarningNs = 244'000;  // UIP rises this long before the registers change
constexpr u64 kCrystalHz = 32768;

enum Register : u8 {
  kSecond = 0,
  kSecondAlarm = 1,
  kMinute = 2,
  kMinuteAlarm = 3,
  kHour = 4,
  kHourAlarm = 5,
  kWeekday = 6,
  kDay = 7,
  kMonth = 8,
  kYear = 9,
  kA = 10,
  kB = 11,
  kC = RtcState::kRegisterC,
  kD = 13,
  kCentury = 0x32,
};

constexpr u8 kUip = 0x80;                                                    // A
constexpr u8 kSet = 0x80, kBinary = 0x04, k24Hour = 0x02;                    // B
constexpr u8 kPeriodic = 0x40, kAlarm = 0x20, kUpdate = 0x10, kIrqf = 0x80;  // B and C

bool is_time(u8 index) { return index <= kYear || index == kCentury; }
bool is_alarm(u8 index) { return index == kSecondAlarm || index == kMinuteAlarm || index == kHourAlarm; }

struct Date {
  i64 year;
  unsigned month, day;
};

// Proleptic Gregorian calendar, counted in 400-year eras that begin on 1 March: the leap day is then the last of its
// year.
i64 days_from(Date d) {
  const i64 y = d.year - (d.month <= 2);
  const i64 era = (y >= 0 ? y : y - 399) / 400;
  const i64 yoe = y - era * 400;
  const i64 doy = (153 * (static_cast<i64>(d.month) + (d.month > 2 ? -3 : 9)) + 2) / 5 + d.day - 1;
  return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

Date date_from(i64 days) {
  days += 719468;
  const i64 era = (days >= 0 ? days : days - 146096) / 146097;
  const i64 doe = days - era * 146097;
  const i64 yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  const i64 doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  const i64 mp = (5 * doy + 2) / 153;
  const unsigned month = static_cast<unsigned>(mp < 10 ? mp + 3 : mp - 9);
  return {yoe + era * 400 + (month <= 2), month, static_cast<unsigned>(doy - (153 * mp + 2) / 5 + 1)};
}

// Rates 1 and 2 are those of 8 and 9 with this crystal.
u64 crystal_ticks(u8 rate) { return rate == 0 ? 0 : u64{1} << (rate <= 2 ? rate + 6 : rate - 1); }

i64 floor_div(i64 a, i64 b) { return a / b - (a % b < 0); }

}  // namespace

Rtc::Rtc(IrqLine& irq8, TimeSource& time, std::function<void()> alarm)
    : irq_{irq8}, time_{time}, alarm_{std::move(alarm)} {
  s_.clock.phase_ns = time_.now_ns();
  s_.clock.base = static_cast<i64>(std::min<u64>(time_.wall_clock_seconds(), u64{1} << 40));
  s_.clock.ram[kA] = 0x26;  // 32.768 kHz crystal, 1024 Hz
  s_.clock.ram[kB] = k24Hour;
  s_.clock.ram[kD] = 0x80;  // the battery is good
  rearm();
}

// RESET does not stop the clock: it clears the interrupt enables and flags (MC146818 data sheet, "RESET").
void Rtc::reset() {
  s_.clock.ram[kB] &= static_cast<u8>(~(kPeriodic | kAlarm | kUpdate | 0x08));
  s_.clock.ram[kC] = 0;
  s_.index = 0;
  update_irq();
  rearm();
}

u64 RtcState::passed_ns(u64 guest_ns) const { return std::max(guest_ns, phase_ns) - phase_ns; }
u64 RtcState::seconds(u64 guest_ns) const { return passed_ns(guest_ns) / kNsPerSecond; }
bool RtcState::halted() const { return (ram[kB] & kSet) || (ram[kA] & 0x60) == 0x60; }

u64 Rtc::periodic_count() const {
  const u64 ticks = crystal_ticks(s_.clock.ram[kA] & 15);
  if (ticks == 0) return 0;
  return static_cast<u64>(static_cast<u128>(s_.clock.passed_ns(time_.now_ns())) * kCrystalHz / kNsPerSecond) / ticks;
}

u8 RtcState::encode(unsigned v) const { return static_cast<u8>(ram[kB] & kBinary ? v : v / 10 % 10 << 4 | v % 10); }
unsigned RtcState::decode(u8 v) const { return ram[kB] & kBinary ? v : (v >> 4) * 10u + (v & 15); }

u8 RtcState::encode_hour(unsigned h) const {
  if (ram[kB] & k24Hour) return encode(h);
  return encode(h % 12 == 0 ? 12 : h % 12) | (h >= 12 ? 0x80 : 0);
}
unsigned RtcState::decode_hour(u8 v) const {
  if (ram[kB] & k24Hour) return decode(v);
  return decode(v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

void RtcState::fill_time(u64 guest_ns) {
  if (halted()) return;
  const i64 t = base + static_cast<i64>(seconds(guest_ns));
  const i64 days = floor_div(t, 86400);
  const unsigned s = static_cast<unsigned>(t - days * 86400);
  const Date d = date_from(days);
  ram[kSecond] = encode(s % 60);
  ram[kMinute] = encode(s / 60 % 60);
  ram[kHour] = encode_hour(s / 3600);
  ram[kWeekday] = static_cast<u8>(((days + 4) % 7 + 7) % 7 + 1);  // 1970-01-01 was a Thursday; Sunday is 1
  ram[kDay] = encode(d.day);
  ram[kMonth] = encode(d.month);
  ram[kYear] = encode(static_cast<unsigned>((d.year % 100 + 100) % 100));
  ram[kCentury] = encode(static_cast<unsigned>(std::clamp<i64>(d.year / 100, 0, 99)));
}

u8 RtcState::read(u8 index, u64 guest_ns) {
  if (index == kA) {
    const bool uip = !halted() && passed_ns(guest_ns) % kNsPerSecond >= kNsPerSecond - kUpdateWarningNs;
    return ram[kA] | (uip ? kUip : 0);
  }
  if (is_time(index) && !is_alarm(index)) fill_time(guest_ns);
  return ram[index & 0x7f];
}

// Any byte may stand in any register: what is out of range carries over or is clamped. The sub-second phase stays.
void Rtc::take_time() {
  const unsigned century =
      s_.clock.ram[kB] & kBinary ? s_.clock.ram[kCentury] : s_.clock.decode(s_.clock.ram[kCentury]);
  const Date d{static_cast<i64>(century) * 100 + s_.clock.decode(s_.clock.ram[kYear]),
               std::clamp(s_.clock.decode(s_.clock.ram[kMonth]), 1u, 12u),
               std::clamp(s_.clock.decode(s_.clock.ram[kDay]), 1u, 31u)};
  const i64 t = days_from(d) * 86400 + static_cast<i64>(s_.clock.decode_hour(s_.clock.ram[kHour])) * 3600 +
                static_cast<i64>(s_.clock.decode(s_.clock.ram[kMinute])) * 60 +
                static_cast<i64>(s_.clock.decode(s_.clock.ram[kSecond]));
  s_.clock.base = t - static_cast<i64>(seconds());
}

// The flags say what happened since they were last looked at, however often it did.
void Rtc::collect_flags() {
  const u64 updates = seconds(), periods = periodic_count();
  if (!s_.clock.halted()) {
    if (updates > s_.updates_seen) s_.clock.ram[kC] |= kUpdate;
    if (updates >= s_.alarm_at) {
      s_.clock.ram[kC] |= kAlarm;
      if (alarm_ && (s_.clock.ram[kB] & kAlarm)) alarm_();
      s_.alarm_at = kNever;  // rearm() finds the next
    }
  }
  if (periods > s_.periods_seen) s_.clock.ram[kC] |= kPeriodic;
  s_.updates_seen = updates;
  s_.periods_seen = periods;
}

void Rtc::update_irq() {
  const bool up = s_.clock.ram[kC] & s_.clock.ram[kB] & (kPeriodic | kAlarm | kUpdate);
  s_.clock.ram[kC] = static_cast<u8>((s_.clock.ram[kC] & ~kIrqf) | (up ? kIrqf : 0));
  irq_.set(up);
}

u64 Rtc::next_alarm() const {
  if (s_.clock.halted()) return kNever;
  const auto any = [&](u8 r) { return s_.clock.ram[r] >= 0xc0; };  // "don't care"
  const auto from = s_.clock.base + static_cast<i64>(seconds()) + 1;
  const i64 midnight = floor_div(from, 86400) * 86400;
  unsigned start = static_cast<unsigned>(from - midnight);
  for (unsigned day = 0; day < 2; day++, start = 0) {
    for (unsigned h = start / 3600; h < 24; h++) {
      if (!any(kHourAlarm) && s_.clock.decode_hour(s_.clock.ram[kHourAlarm]) != h) continue;
      for (unsigned m = h == start / 3600 ? start / 60 % 60 : 0; m < 60; m++) {
        if (!any(kMinuteAlarm) && s_.clock.decode(s_.clock.ram[kMinuteAlarm]) != m) continue;
        const unsigned first = h * 60 + m == start / 60 ? start % 60 : 0;
        const unsigned s = any(kSecondAlarm) ? first : s_.clock.decode(s_.clock.ram[kSecondAlarm]);
        if (s < first || s > 59) continue;
        const i64 at = midnight + day * i64{86400} + h * 3600 + m * 60 + s - s_.clock.base;
        return at < 0 ? kNever : static_cast<u64>(at);
      }
    }
  }
  return kNever;
}

void Rtc::rearm() {
  if (s_.alarm_at == kNever || s_.alarm_at <= seconds()) s_.alarm_at = next_alarm();
  const u8 waited = s_.clock.ram[kB] & static_cast<u8>(~s_.clock.ram[kC]);
  u64 at = kNever;
  if (!s_.clock.halted()) {
    if (waited & kUpdate) at = (seconds() + 1) * kNsPerSecond;
    if ((waited & kAlarm) && s_.alarm_at < kNever / kNsPerSecond) at = std::min(at, s_.alarm_at * kNsPerSecond);
  }
  if (const u64 ticks = crystal_ticks(s_.clock.ram[kA] & 15); ticks != 0 && (waited & kPeriodic)) {
    const u128 next = static_cast<u128>(periodic_count() + 1) * ticks;
    at = std::min(at, static_cast<u64>((next * kNsPerSecond + kCrystalHz - 1) / kCrystalHz));
  }
  s_.deadline = at >= kNever - s_.clock.phase_ns ? kNever : at + s_.clock.phase_ns;
}

void Rtc::tick() {
  if (time_.now_ns() < s_.deadline) return;
  collect_flags();
  update_irq();
  rearm();
}

u64 Rtc::read(u64 offset, unsigned) {
  if (offset != 1) return 0xff;  // the index is write-only
  return s_.index == kC ? read_flags() : s_.clock.read(s_.index, time_.now_ns());
}

void Rtc::write(u64 offset, unsigned, u64 value) {
  if (offset == 0)
    s_.index = value & 0x7f;  // bit 7 masks NMIs, of which this machine has none
  else if (offset == 1)
    write_register(s_.index, static_cast<u8>(value));
}

u8 Rtc::read_flags() {
  collect_flags();
  update_irq();
  const u8 flags = s_.clock.ram[kC];
  s_.clock.ram[kC] = 0;
  update_irq();
  rearm();
  return flags;
}

void Rtc::write_register(u8 index, u8 value) {
  if (index == kC || index == kD) return;
  if (!is_time(index) && index != kA && index != kB) {
    s_.clock.ram[index] = value;
    return;
  }
  collect_flags();
  s_.clock.fill_time(time_.now_ns());
  const bool was_halted = s_.clock.halted(), was_in_reset = (s_.clock.ram[kA] & 0x60) == 0x60;
  s_.clock.ram[index] = value;
  if (index == kA) {
    s_.clock.ram[kA] &= static_cast<u8>(~kUip);
    s_.periods_seen = periodic_count();
  }
  if (index == kB && (value & kSet)) s_.clock.ram[kB] &= static_cast<u8>(~kUpdate);  // SET clears UIE
  if (was_in_reset &&
      (s_.clock.ram[kA] & 0x60) != 0x60) {  // the first update comes half a second after the divider starts
    s_.clock.base += static_cast<i64>(seconds());
    s_.clock.phase_ns = std::max(time_.now_ns(), kNsPerSecond / 2) - kNsPerSecond / 2;
    s_.updates_seen = 0;
    s_.periods_seen = periodic_count();
  }
  if (was_halted ? !s_.clock.halted() : is_time(index) && !is_alarm(index)) take_time();
  if (is_time(index) || was_halted != s_.clock.halted()) s_.alarm_at = kNever;
  update_irq();
  rearm();
}

}  // namespace trapline::devices
