// Limit and type checks of the legacy modes. Intel SDM Vol. 3A sections 5.3 (limits), 5.4 (null selectors), 5.5
// (types).
#include "cpu/mmu.h"

namespace trapline::cpu {

namespace {

// First and last valid offset: an expand-down data segment lies above its limit.
bool inside(const Segment& s, u64 offset, unsigned size, bool real) {
  const u64 last = offset + size - 1;
  const bool expand_down = !real && (s.attr & 0xc) == 4;
  if (!expand_down) return last <= s.limit;
  return offset > s.limit && last <= (s.big() ? 0xffffffff : 0xffff);
}

bool type_allows(const Segment& s, Access access) {
  const bool code = s.attr & 8, bit1 = s.attr & 2;  // bit 1: writable data, readable code
  switch (access) {
    case Access::fetch:
      return true;
    case Access::read:
      return !code || bit1;
    default:
      return !code && bit1;
  }
}

}  // namespace

bool segment_check_slow(Vcpu& cpu, Seg seg, u64 offset, unsigned size, Access access) {
  if (cpu.in_long64()) return true;
  const Segment& s = cpu.segment(seg);
  const bool real = cpu.mode == Mode::real || cpu.mode == Mode::vm86;
  const bool typed = real || (s.usable && type_allows(s, access));
  if (typed && inside(s, offset & 0xffffffff, size, real)) return true;
  static_cast<void>(cpu.raise(seg == Seg::ss ? Vector::ss : Vector::gp));
  return false;
}

}  // namespace trapline::cpu
