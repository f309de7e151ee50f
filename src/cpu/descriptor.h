// Selectors and the descriptors of GDT, LDT and IDT: how they are found, read and turned into segment registers.
// Intel SDM Vol. 3A 3.4 (segments), 5.8.3 (gates), 7.2 (TSS).
#pragma once

#include <cstring>

#include "cpu/mmu.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

constexpr u16 selector_error(u16 selector) { return selector & 0xfffc; }  // as it appears in error codes
constexpr bool null_selector(u16 selector) { return (selector & 0xfffc) == 0; }
constexpr u8 rpl_of(u16 selector) { return selector & 3; }

// Types of system descriptors (SDM Vol. 3A table 3-2). In IA-32e mode only ldt, tss32, call32, int32, trap32: 64 bits
// wide there.
namespace system_type {
inline constexpr u8 tss16 = 1, ldt = 2, tss16_busy = 3, call16 = 4, task_gate = 5, int16 = 6, trap16 = 7, tss32 = 9,
                    tss32_busy = 11, call32 = 12, int32 = 14, trap32 = 15;
}

struct Descriptor {
  u32 low = 0, high = 0;
  u32 upper = 0;  // bytes 8..11 of a 16-byte descriptor
  Gva address;    // it was read from there

  u8 type() const { return high >> 8 & 15; }
  bool system() const { return !(high & 0x1000); }
  bool code() const { return (high & 0x1800) == 0x1800; }
  bool data() const { return (high & 0x1800) == 0x1000; }
  bool conforming_code() const { return (high & 0x1c00) == 0x1c00; }
  bool readable_code() const { return (high & 0x1a00) == 0x1a00; }
  bool writable_data() const { return (high & 0x1a00) == 0x1200; }
  u8 dpl() const { return high >> 13 & 3; }
  bool present() const { return high & 0x8000; }
  bool long_code() const { return high & 0x200000; }
  bool big() const { return high & 0x400000; }
  u64 base() const { return low >> 16 | (high & 0xff) << 16 | (high & 0xff000000) | static_cast<u64>(upper) << 32; }
  u32 limit() const {
    const u32 raw = (low & 0xffff) | (high & 0xf0000);
    return high & 0x800000 ? raw << 12 | 0xfff : raw;
  }
  u16 attr() const { return high >> 8 & 0xf0ff; }  // as Segment::attr
  // Gates.
  u16 gate_selector() const { return static_cast<u16>(low >> 16); }
  u64 gate_offset() const { return (low & 0xffff) | (high & 0xffff0000) | static_cast<u64>(upper) << 32; }
  u8 gate_parameters() const { return high & 31; }
  u8 gate_ist() const { return high & 7; }
};

// A supervisor read or write of a table or TSS: the TLB first.
template <class T>
[[nodiscard]] inline bool system_read(Vcpu& cpu, Gva linear, T& out) {
  if (const u8* host = tlb_lookup(cpu, linear, sizeof(T), perm::kernel_read)) [[likely]] {
    std::memcpy(&out, host, sizeof(T));
    return true;
  }
  return read_system(cpu, linear, &out, sizeof(T));
}
template <class T>
[[nodiscard]] inline bool system_write(Vcpu& cpu, Gva linear, const T& value) {
  return write_system(cpu, linear, &value, sizeof(T));
}

// Linear addresses of tables wrap at 4 GiB outside IA-32e mode.
inline Gva table_address(const Vcpu& cpu, u64 base, u64 offset) {
  return Gva{(base + offset) & (cpu.long_mode_active() ? ~u64{0} : 0xffffffff)};
}

// Where the descriptor stands, or false when [selector, +bytes) is outside its table.
bool locate_descriptor(const Vcpu& cpu, u16 selector, unsigned bytes, Gva& address);
// Reads it; outside the table: `outside`(selector). False: cpu.fault set.
bool fetch_descriptor(Vcpu& cpu, u16 selector, Vector outside, Descriptor& out);
// In IA-32e mode completes a 16-byte system descriptor; elsewhere does nothing. False: cpu.fault set (bad:
// `bad`(selector)).
bool fetch_upper_half(Vcpu& cpu, u16 selector, Vector bad, Descriptor& d);
// Sets the accessed bit in memory and in `d` unless it is set already.
bool mark_accessed(Vcpu& cpu, Descriptor& d);
// Sets or clears the busy bit of a TSS descriptor in memory and in `d`.
bool mark_busy(Vcpu& cpu, Descriptor& d, bool busy);

// The hidden part that a descriptor loads; a null selector's.
Segment segment_from(u16 selector, const Descriptor& d);
Segment null_segment(u16 selector);
// What a selector load makes of a segment register in real-address and virtual-8086 mode.
void load_real_segment(Segment& s, u16 selector);
Segment vm86_segment(u16 selector);

// Do `bytes` at `offset` fit the segment (either direction of growth)?
bool within_segment(const Segment& s, u64 offset, u64 bytes);
// Could execution start at `ip` in this code segment? Otherwise #GP(0). Canonical in a 64-bit segment, in the limit
// elsewhere.
bool check_target(Vcpu& cpu, const Descriptor& code, u64 ip);

// Puts a checked code segment into CS at privilege level `cpl`. The caller calls update_mode() when all is loaded.
inline void load_cs(Vcpu& cpu, u16 selector, const Descriptor& code, u8 cpl) {
  cpu.segment(Seg::cs) = segment_from(static_cast<u16>((selector & ~3) | cpl), code);
  cpu.cpl = cpl;
}
inline Segment& ss_of(Vcpu& cpu) { return cpu.segment(Seg::ss); }
inline Segment& cs_of(Vcpu& cpu) { return cpu.segment(Seg::cs); }

// -- Data and stack segments: the checks of MOV Sreg (SDM Vol. 2B). Nothing is loaded; `out` is the new hidden part.
// `cpl`: the level to load at; `bad`: the vector for a bad selector (#GP; #TS on a task switch).
bool check_data_segment(Vcpu& cpu, u16 selector, u8 cpl, Vector bad, Segment& out);
bool check_stack_segment(Vcpu& cpu, u16 selector, u8 cpl, Vector bad, Segment& out);
// LDTR (LLDT: #GP, #NP; task switch: #TS for both).
bool check_ldt(Vcpu& cpu, u16 selector, Vector bad, Vector absent, Segment& out);

}  // namespace trapline::cpu
