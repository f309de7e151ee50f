#include "cpu/descriptor.h"

namespace trapline::cpu {

bool locate_descriptor(const Vcpu& cpu, u16 selector, unsigned bytes, Gva& address) {
  const u32 offset = selector & 0xfff8;
  u64 base = cpu.gdtr.base;
  u32 limit = cpu.gdtr.limit;
  if (selector & 4) {
    if (!cpu.ldtr.usable) return false;
    base = cpu.ldtr.base;
    limit = cpu.ldtr.limit;
  }
  if (u64{offset} + bytes - 1 > limit) return false;
  address = table_address(cpu, base, offset);
  return true;
}

bool fetch_descriptor(Vcpu& cpu, u16 selector, Vector outside, Descriptor& out) {
  Gva address;
  if (!locate_descriptor(cpu, selector, 8, address)) {
    (void)cpu.raise(outside, selector_error(selector));
    return false;
  }
  u64 raw;
  if (!system_read(cpu, address, raw)) return false;
  out.low = static_cast<u32>(raw);
  out.high = static_cast<u32>(raw >> 32);
  out.upper = 0;
  out.address = address;
  return true;
}

bool fetch_upper_half(Vcpu& cpu, u16 selector, Vector bad, Descriptor& d) {
  if (!cpu.long_mode_active()) return true;
  Gva address;
  u64 raw = 0;
  const bool inside = locate_descriptor(cpu, selector, 16, address);
  if (inside && !system_read(cpu, d.address.wrapping_add(8), raw)) return false;
  // The upper half's type field must be 0, so that it is no descriptor of its own (SDM Vol. 3A 5.8.3.1).
  if (!inside || (raw >> 32 & 0x1f00)) {
    (void)cpu.raise(bad, selector_error(selector));
    return false;
  }
  d.upper = static_cast<u32>(raw);
  return true;
}

bool mark_accessed(Vcpu& cpu, Descriptor& d) {
  if (d.high & 0x100) return true;
  d.high |= 0x100;
  return system_write(cpu, d.address.wrapping_add(5), static_cast<u8>(d.high >> 8));
}

bool mark_busy(Vcpu& cpu, Descriptor& d, bool busy) {
  d.high = busy ? d.high | 0x200 : d.high & ~0x200u;
  return system_write(cpu, d.address.wrapping_add(5), static_cast<u8>(d.high >> 8));
}

Segment segment_from(u16 selector, const Descriptor& d) {
  Segment s;
  s.selector = selector;
  s.attr = d.attr();
  s.limit = d.limit();
  s.base = d.base();
  s.linear_base = s.base;
  s.usable = true;
  return s;
}

Segment null_segment(u16 selector) {
  Segment s;
  s.selector = selector;
  return s;
}

void load_real_segment(Segment& s, u16 selector) {
  // Limit and attributes stay what protected mode left ("unreal mode").
  s.selector = selector;
  s.base = s.linear_base = u64{selector} << 4;
  s.usable = true;
}

Segment vm86_segment(u16 selector) {
  Segment s;
  s.selector = selector;
  s.attr = 0xf3;
  s.limit = 0xffff;
  s.base = s.linear_base = u64{selector} << 4;
  s.usable = true;
  return s;
}

bool within_segment(const Segment& s, u64 offset, u64 bytes) {
  const u64 last = offset + bytes - 1;
  if (!s.system() && (s.type() & 0xc) == 4) return offset > s.limit && last <= (s.big() ? 0xffffffff : 0xffff);
  return last <= s.limit;
}

bool check_target(Vcpu& cpu, const Descriptor& code, u64 ip) {
  const bool fits = cpu.long_mode_active() && code.long_code() ? canonical(ip) : ip <= code.limit();
  if (!fits) (void)cpu.raise_gp(0);
  return fits;
}

bool check_data_segment(Vcpu& cpu, u16 selector, u8 cpl, Vector bad, Segment& out) {
  if (null_selector(selector)) {
    out = null_segment(selector);
    return true;
  }
  Descriptor d;
  if (!fetch_descriptor(cpu, selector, bad, d)) return false;
  const bool type_ok = d.data() || d.readable_code();
  const bool privileged = !d.conforming_code() && (rpl_of(selector) > d.dpl() || cpl > d.dpl());
  if (!type_ok || privileged) {
    (void)cpu.raise(bad, selector_error(selector));
    return false;
  }
  if (!d.present()) {
    (void)cpu.raise(Vector::np, selector_error(selector));
    return false;
  }
  if (!mark_accessed(cpu, d)) return false;
  out = segment_from(selector, d);
  return true;
}

bool check_stack_segment(Vcpu& cpu, u16 selector, u8 cpl, Vector bad, Segment& out) {
  Descriptor d;
  if (null_selector(selector)) {
    (void)cpu.raise(bad, 0);
    return false;
  }
  if (!fetch_descriptor(cpu, selector, bad, d)) return false;
  if (rpl_of(selector) != cpl || !d.writable_data() || d.dpl() != cpl) {
    (void)cpu.raise(bad, selector_error(selector));
    return false;
  }
  if (!d.present()) {
    (void)cpu.raise(Vector::ss, selector_error(selector));
    return false;
  }
  if (!mark_accessed(cpu, d)) return false;
  out = segment_from(selector, d);
  return true;
}

bool check_ldt(Vcpu& cpu, u16 selector, Vector bad, Vector absent, Segment& out) {
  if (null_selector(selector)) {
    out = null_segment(selector);
    return true;
  }
  Descriptor d;
  const u16 error = selector_error(selector);
  if (selector & 4) {
    (void)cpu.raise(bad, error);
    return false;
  }
  if (!fetch_descriptor(cpu, selector, bad, d)) return false;
  if (!d.system() || d.type() != system_type::ldt) {
    (void)cpu.raise(bad, error);
    return false;
  }
  if (!d.present()) {
    (void)cpu.raise(absent, error);
    return false;
  }
  if (!fetch_upper_half(cpu, selector, bad, d)) return false;
  if (!canonical(d.base())) {
    (void)cpu.raise(bad, error);
    return false;
  }
  out = segment_from(selector, d);
  return true;
}

}  // namespace trapline::cpu
