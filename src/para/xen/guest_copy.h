// Copies between a hypercall and the memory of the guest's kernel that called, by its linear addresses, with its rights.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/mmu.h"
#include "para/xen/layout.h"

namespace trapline::para::xen {

// Xen takes no pointer into its own area, not even where the guest may read.
inline bool guest_range(Gva first, u64 bytes) {
  if (bytes == 0) return true;
  const std::optional<Gva> last = first.checked_add(bytes - 1);
  const auto outside = [](Gva at) { return at.raw < (u64{1} << 47) || at >= kHypervisorEnd; };
  return last && outside(first) && outside(*last) && (first.raw >> 63) == (last->raw >> 63);
}

// How many of the `bytes` from `at` on are in its page.
inline unsigned in_page(Gva at, u64 bytes) {
  return static_cast<unsigned>(std::min<u64>(bytes, kPageSize - at.page_offset()));
}

inline bool copy_from(cpu::Vcpu& cpu, Gva from, void* out, u64 bytes) {
  if (!guest_range(from, bytes)) return false;
  for (u8* to = static_cast<u8*>(out); bytes != 0;) {
    const unsigned n = in_page(from, bytes);
    if (const u8* host = cpu::tlb_lookup(cpu, from, n, cpu.need_read))
      std::memcpy(to, host, n);
    else if (!cpu::read_slow(cpu, cpu::Seg::ds, from, to, n))
      return false;
    from = from.wrapping_add(n), to += n, bytes -= n;
  }
  return true;
}

inline bool copy_to(cpu::Vcpu& cpu, Gva to, const void* in, u64 bytes, cpu::Seg seg = cpu::Seg::ds) {
  if (!guest_range(to, bytes)) return false;
  for (const u8* from = static_cast<const u8*>(in); bytes != 0;) {
    const unsigned n = in_page(to, bytes);
    if (u8* host = cpu::tlb_lookup(cpu, to, n, cpu.need_write))
      std::memcpy(host, from, n);
    else if (!cpu::write_slow(cpu, seg, to, from, n))
      return false;
    to = to.wrapping_add(n), from += n, bytes -= n;
  }
  return true;
}

// The address that a guest handle, a pointer in the headers' terms, holds.
template <class Handle>
Gva address_in(const Handle& handle) {
  u64 raw;
  static_assert(sizeof raw == sizeof handle);
  std::memcpy(&raw, &handle, sizeof raw);
  return Gva{raw};
}

template <class T>
[[nodiscard]] bool get(cpu::Vcpu& cpu, Gva from, T& out) {
  return copy_from(cpu, from, &out, sizeof(T));
}
template <class T>
[[nodiscard]] bool put(cpu::Vcpu& cpu, Gva to, const T& value) {
  return copy_to(cpu, to, &value, sizeof(T));
}

}  // namespace trapline::para::xen
