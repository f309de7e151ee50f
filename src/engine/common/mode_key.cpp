#include "engine/common/mode_key.h"

namespace trapline::engine {

using cpu::Seg;

namespace {

bool flat(const cpu::Segment& s) { return s.flat_read && s.flat_write && s.linear_base == 0; }

}  // namespace

u32 mode_key(const cpu::Vcpu& cpu) {
  if (cpu.mode == cpu::Mode::long64) return 2 | key::flat_data | key::flat_code;
  u32 k = cpu.code_size() == isa::CodeSize::bits32 ? 1 : 0;
  if (cpu.segment(Seg::ss).big()) k |= key::ss_big;
  if (flat(cpu.segment(Seg::ds)) && flat(cpu.segment(Seg::es)) && flat(cpu.segment(Seg::ss))) k |= key::flat_data;
  if (cpu.segment(Seg::cs).linear_base == 0 && cpu.segment(Seg::cs).limit == 0xffffffff) k |= key::flat_code;
  return k;
}

}  // namespace trapline::engine
