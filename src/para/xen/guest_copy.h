// Copies between a hypercall and the memory of the guest's kernel that called, by its linear addresses, with its rights.
#pragma once

#include "cpu/mmu.h"
#include "para/xen/layout.h"

namespace trapline::para::xen {

// Xen takes no pointer into its own area, not even where the guest may read.
inline bool guest_range(u64 linear, u64 bytes) {
  const u64 last = linear + bytes - 1;
  if (bytes == 0 || last < linear) return bytes == 0;
  const auto outside = [](u64 at) { return at < (u64{1} << 47) || at >= kHypervisorEnd; };
  return outside(linear) && outside(last) && (linear >> 63) == (last >> 63);
}

inline bool copy_from(cpu::Vcpu& cpu, u64 linear, void* out, u64 bytes) {
  if (!guest_range(linear, bytes)) return false;
  for (u8* to = static_cast<u8*>(out); bytes != 0;) {
    const unsigned n = static_cast<unsigned>(std::min<u64>(bytes, kPageSize - (linear & (kPageSize - 1))));
    if (const u8* host = cpu::tlb_lookup(cpu, Gva{linear}, n, cpu.need_read))
      std::memcpy(to, host, n);
    else if (!cpu::read_slow(cpu, cpu::Seg::ds, Gva{linear}, to, n))
      return false;
    linear += n, to += n, bytes -= n;
  }
  return true;
}

inline bool copy_to(cpu::Vcpu& cpu, u64 linear, const void* in, u64 bytes, cpu::Seg seg = cpu::Seg::ds) {
  if (!guest_range(linear, bytes)) return false;
  for (const u8* from = static_cast<const u8*>(in); bytes != 0;) {
    const unsigned n = static_cast<unsigned>(std::min<u64>(bytes, kPageSize - (linear & (kPageSize - 1))));
    if (u8* host = cpu::tlb_lookup(cpu, Gva{linear}, n, cpu.need_write))
      std::memcpy(host, from, n);
    else if (!cpu::write_slow(cpu, seg, Gva{linear}, from, n))
      return false;
    linear += n, from += n, bytes -= n;
  }
  return true;
}

template <class T>
[[nodiscard]] bool get(cpu::Vcpu& cpu, u64 linear, T& out) {
  return copy_from(cpu, linear, &out, sizeof(T));
}
template <class T>
[[nodiscard]] bool put(cpu::Vcpu& cpu, u64 linear, const T& value) {
  return copy_to(cpu, linear, &value, sizeof(T));
}

}  // namespace trapline::para::xen
