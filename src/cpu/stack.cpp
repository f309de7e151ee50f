#include "cpu/stack.h"

namespace trapline::cpu {

bool StackWriter::push(u64 value, unsigned bytes, unsigned written) {
  const u64 offset = (rsp_ - bytes) & mask_;
  const unsigned size = written ? written : bytes;
  Gva linear{offset};
  const bool fits =
      long64_ ? canonical(offset) && canonical(offset + size - 1) : ss_.usable && within_segment(ss_, offset, size);
  if (!fits) {
    (void)cpu_.raise(Vector::ss, error_);
    return false;
  }
  if (!long64_) linear = Gva{(ss_.base + offset) & 0xffffffff};
  if (current_) {
    if (u8* host = tlb_lookup(cpu_, linear, size, cpu_.need_write)) [[likely]]
      std::memcpy(host, &value, size);
    else if (!write_slow(cpu_, Seg::ss, linear, &value, size))
      return false;
  } else if (!write_system(cpu_, linear, &value, size, Seg::ss)) {
    return false;
  }
  rsp_ = (rsp_ & ~mask_) | offset;
  return true;
}

bool StackWriter::has_room(unsigned bytes) {
  if (long64_) return true;
  // The slots are adjacent unless the pointer wraps; then each has to fit by itself, which push() checks.
  const u64 offset = (rsp_ - bytes) & mask_;
  const bool wraps = (rsp_ & mask_) < bytes && (rsp_ & mask_) != 0;
  if (ss_.usable && (wraps || within_segment(ss_, offset, bytes))) return true;
  (void)cpu_.raise(Vector::ss, error_);
  return false;
}

bool StackReader::pop(u64& value, unsigned bytes) {
  value = 0;
  Gva linear;
  if (!to_linear(cpu_, Seg::ss, rsp_ & mask_, bytes, Access::read, linear)) return false;
  if (const u8* host = tlb_lookup(cpu_, linear, bytes, cpu_.need_read)) [[likely]]
    std::memcpy(&value, host, bytes);
  else if (!read_slow(cpu_, Seg::ss, linear, &value, bytes))
    return false;
  skip(bytes);
  return true;
}

bool inner_stack(Vcpu& cpu, u8 cpl, u16& ss, u32& esp) {
  const bool wide = cpu.tr.type() & 8;
  const u32 offset = wide ? cpl * 8u + 4 : cpl * 4u + 2;
  if (!cpu.tr.usable || offset + (wide ? 5 : 3) > cpu.tr.limit) {
    (void)cpu.raise(Vector::ts, selector_error(cpu.tr.selector));
    return false;
  }
  const Gva address = table_address(cpu, cpu.tr.base, offset);
  if (wide) return system_read(cpu, address, esp) && system_read(cpu, table_address(cpu, cpu.tr.base, offset + 4), ss);
  u16 sp;
  if (!system_read(cpu, address, sp)) return false;
  esp = sp;
  return system_read(cpu, table_address(cpu, cpu.tr.base, offset + 2), ss);
}

bool inner_stack64(Vcpu& cpu, unsigned offset, u64& rsp) {
  if (!cpu.tr.usable || offset + 7 > cpu.tr.limit) {
    (void)cpu.raise(Vector::ts, selector_error(cpu.tr.selector));
    return false;
  }
  return system_read(cpu, Gva{cpu.tr.base + offset}, rsp);
}

}  // namespace trapline::cpu
