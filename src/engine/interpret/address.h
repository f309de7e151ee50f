// Memory operands: from an op to a linear address to a host pointer. The fast ways are inline and take no call, so that
// handlers need no frame; when they give null the handler tail-calls its slow twin, which works for every mode.
#pragma once

#include "engine/interpret/op.h"

namespace trapline::engine::interpret {

enum class Address : u8 {
  base64,   // 64-bit mode, no FS or GS: base + disp
  index64,  // the same with an index
  flat32,   // 32-bit addresses in flat segments
  any,      // segment bases, limits, 16-bit addresses, address-size prefixes
};

inline u64 offset_of(Vcpu& cpu, const Op* op) {
  const u64 sum = get<u64>(cpu, op->base) + (get<u64>(cpu, op->index) << op->scale) + static_cast<u64>(i64{op->disp});
  return sum & ~u64{0} >> op->address_shift;
}

// The host address of a `size`-byte access, or null: then take the slow twin.
template <Address A, bool Write>
inline u8* reach(Vcpu& cpu, const Op* op, unsigned size) {
  Gva linear;
  if constexpr (A == Address::base64) {
    linear = Gva{get<u64>(cpu, op->base) + static_cast<u64>(i64{op->disp})};
  } else if constexpr (A == Address::index64) {
    linear = Gva{get<u64>(cpu, op->base) + (get<u64>(cpu, op->index) << op->scale) + static_cast<u64>(i64{op->disp})};
  } else if constexpr (A == Address::flat32) {
    linear = Gva{static_cast<u32>(get<u64>(cpu, op->base) + (get<u64>(cpu, op->index) << op->scale) +
                                  static_cast<u64>(i64{op->disp}))};
  } else {
    const cpu::Segment& s = cpu.seg[op->seg];
    if (!(Write ? s.flat_write : s.flat_read)) [[unlikely]]
      return nullptr;
    linear = Gva{(s.linear_base + offset_of(cpu, op)) & cpu.linear_mask};
  }
  return cpu::tlb_lookup(cpu, linear, size, Write ? cpu.need_write : cpu.need_read);
}

template <class T>
inline T load(const u8* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(u8* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

// -- Slow twins' helpers (slow_access.cpp): every mode, page crossings, device memory, faults
struct Loaded {
  u64 value;
  bool ok;  // false: cpu.fault is set
};
Loaded load_slow(Vcpu& cpu, const Op* op, unsigned size);
// Of the stack, by cpu::push and cpu::pop.
bool push_slow(Vcpu& cpu, const Op* op, u64 value, unsigned size);
bool probe_push(Vcpu& cpu, const Op* op, unsigned size);  // faults as a push would, and writes nothing
Loaded pop_slow(Vcpu& cpu, const Op* op, unsigned size);
bool store_slow(Vcpu& cpu, const Op* op, u64 value, unsigned size);

// A read-modify-write's target: a host pointer, or (device memory, page crossing, code) just the checked linear
// address.
struct Target {
  u8* host;
  Gva linear;
  bool ok;
};
Target rmw_target(Vcpu& cpu, const Op* op, unsigned size);
Loaded target_load(Vcpu& cpu, const Op* op, Target target, unsigned size);
bool target_store(Vcpu& cpu, const Op* op, Target target, u64 value, unsigned size);
bool target_replace(Vcpu& cpu, const Op* op, Target target, u64 expected, u64 value, unsigned size,
                    bool* stored);  // as replace_slow()

}  // namespace trapline::engine::interpret
