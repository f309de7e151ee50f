#include "engine/interpret/address.h"

namespace trapline::engine::interpret {

using cpu::Access;

namespace {

Seg seg_of(const Op* op) { return static_cast<Seg>(op->seg); }

// The block's RIP must still be in place when a RIP-relative offset is computed: so before Exact.
bool linear_of(Vcpu& cpu, const Op* op, u64 offset, unsigned size, Access access, Gva& linear) {
  return cpu::to_linear(cpu, seg_of(op), offset, size, access, linear);
}

}  // namespace

Loaded load_slow(Vcpu& cpu, const Op* op, unsigned size) {
  const u64 offset = offset_of(cpu, op);
  const Exact exact{cpu, op};
  Gva linear;
  u64 value = 0;
  const bool ok =
      linear_of(cpu, op, offset, size, Access::read, linear) && cpu::read_slow(cpu, seg_of(op), linear, &value, size);
  return {value, ok};
}

bool store_slow(Vcpu& cpu, const Op* op, u64 value, unsigned size) {
  const u64 offset = offset_of(cpu, op);
  const Exact exact{cpu, op};
  Gva linear;
  return linear_of(cpu, op, offset, size, Access::write, linear) &&
         cpu::write_slow(cpu, seg_of(op), linear, &value, size);
}

bool push_slow(Vcpu& cpu, const Op* op, u64 value, unsigned size) {
  const Exact exact{cpu, op};
  return cpu::push(cpu, value, size);
}

bool probe_push(Vcpu& cpu, const Op* op, unsigned size) {
  const Exact exact{cpu, op};
  return cpu::probe_push(cpu, size);
}

Loaded pop_slow(Vcpu& cpu, const Op* op, unsigned size) {
  const Exact exact{cpu, op};
  u64 value = 0;
  const bool ok = cpu::pop(cpu, &value, size);
  return {value, ok};
}

Target rmw_target(Vcpu& cpu, const Op* op, unsigned size) {
  const u64 offset = offset_of(cpu, op);
  const Exact exact{cpu, op};
  Target t{nullptr, {}, false};
  if (!linear_of(cpu, op, offset, size, Access::rmw, t.linear)) return t;
  bool faulted = false;
  t.host = cpu::rmw_slow(cpu, seg_of(op), t.linear, size, &faulted);
  t.ok = !faulted;
  return t;
}

Loaded target_load(Vcpu& cpu, const Op* op, Target target, unsigned size) {
  const Exact exact{cpu, op};
  u64 value = 0;
  const bool ok = cpu::read_slow(cpu, seg_of(op), target.linear, &value, size);
  return {value, ok};
}

bool target_store(Vcpu& cpu, const Op* op, Target target, u64 value, unsigned size) {
  const Exact exact{cpu, op};
  return cpu::write_slow(cpu, seg_of(op), target.linear, &value, size);
}

bool target_replace(Vcpu& cpu, const Op* op, Target target, u64 expected, u64 value, unsigned size, bool* stored) {
  const Exact exact{cpu, op};
  return cpu::replace_slow(cpu, seg_of(op), target.linear, &expected, &value, size, stored);
}

}  // namespace trapline::engine::interpret
