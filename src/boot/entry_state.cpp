#include "boot/entry_state.h"

#include "cpu/mmu.h"

namespace trapline::boot::loader {

namespace {

// Segment attributes in the layout of cpu::Segment::attr (SDM Vol. 3A 3.4.5).
constexpr u16 kCode32 = 0xc09b, kCode64 = 0xa09b, kData = 0xc093, kTss32Busy = 0x008b;

// The 8-byte descriptor of a flat segment.
constexpr u64 flat_descriptor(u16 attr) { return 0x000f'0000'0000'ffff | u64{attr & 0xf0ffu} << 40; }

cpu::Segment flat(u16 selector, u16 attr) {
  cpu::Segment s;
  s.selector = selector;
  s.attr = attr;
  s.limit = 0xffffffff;
  s.usable = true;
  return s;
}

bool set_common(LoadContext& c, u64 rip, u16 code_attr, Selectors selectors) {
  u64 gdt[4] = {};
  gdt[selectors.code / 8] = flat_descriptor(code_attr);
  gdt[selectors.data / 8] = flat_descriptor(kData);
  const auto at = place_low(c, sizeof gdt, 8);
  if (!at) return false;
  put(c.ram, *at, std::as_bytes(std::span{gdt}));

  cpu::Vcpu& v = c.cpu;
  for (u64& r : v.gpr) r = 0;
  v.rip = rip;
  v.set_rflags_raw(cpu::flag::fixed);
  v.cpl = 0;
  for (cpu::Segment& s : v.seg) s = flat(selectors.data, kData);
  v.segment(isa::Seg::cs) = flat(selectors.code, code_attr);
  v.ldtr = {};
  v.tr = {};
  v.tr.attr = kTss32Busy;  // also the 64-bit TSS's type in long mode
  v.tr.limit = 0x67;
  v.tr.usable = true;
  v.gdtr = {at->raw, sizeof gdt - 1};
  v.idtr = {0, 0};
  v.cr2 = 0;
  v.activity = cpu::Activity::running;
  return true;
}

// PML4, PDPT and four page directories of 2 MiB pages (SDM Vol. 3A 4.5).
std::optional<Gpa> identity_tables(LoadContext& c) {
  constexpr u64 kTable = 0x3, kLargePage = 0x83;  // present, writable; PS
  constexpr unsigned kDirectories = 4;
  const auto at = place_low(c, (2 + kDirectories) * kPageSize, kPageSize);
  if (!at) return std::nullopt;
  const Gpa pdpt = at->wrapping_add(kPageSize), directories = pdpt.wrapping_add(kPageSize);
  put_value<u64>(c.ram, *at, pdpt.raw | kTable);
  for (u64 i = 0; i < kDirectories; i++)
    put_value<u64>(c.ram, pdpt.wrapping_add(8 * i), directories.wrapping_add(i * kPageSize).raw | kTable);
  for (u64 i = 0; i < kDirectories * 512; i++)
    put_value<u64>(c.ram, directories.wrapping_add(8 * i), i * 2 * MiB | kLargePage);
  return at;
}

void finish(cpu::Vcpu& v) {
  if (v.tlb) cpu::tlb_flush_all(v);
  cpu::update_mode(v);
}

}  // namespace

bool enter_protected(LoadContext& c, u64 rip, Selectors selectors) {
  if (!set_common(c, rip, kCode32, selectors)) return false;
  c.cpu.cr0 = cpu::cr0::pe | cpu::cr0::et;
  c.cpu.cr3 = c.cpu.cr4 = c.cpu.efer = 0;
  finish(c.cpu);
  return true;
}

bool enter_long(LoadContext& c, u64 rip, Selectors selectors) {
  const auto tables = identity_tables(c);
  if (!tables || !set_common(c, rip, kCode64, selectors)) return false;
  c.cpu.cr0 = cpu::cr0::pe | cpu::cr0::et | cpu::cr0::pg;
  c.cpu.cr3 = tables->raw;
  c.cpu.cr4 = cpu::cr4::pae;
  c.cpu.efer = cpu::efer::lme | cpu::efer::lma;
  finish(c.cpu);
  return true;
}

}  // namespace trapline::boot::loader
