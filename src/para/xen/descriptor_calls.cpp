// Descriptor tables: pages of the guest's that it cannot write to, seen by the CPU at a fixed place of the hypervisor's
// area, with Xen's own segments behind the guest's.
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/descriptor.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

namespace {

constexpr u32 kMostLdtEntries = 8192;

}  // namespace

// The caller holds lock_. All or nothing.
bool Domain::install_gdt(cpu::Vcpu& cpu, u32 vcpu, const Mfn* frames, u32 entries) {
  VcpuState& v = *vcpu_[vcpu];
  const unsigned pages = (entries + 511) / 512;
  for (unsigned i = 0; i < pages; i++) {
    if (frames_.owned(frames[i]) && frames_.get(cpu, frames[i], Type::descriptors)) continue;
    while (i-- > 0) frames_.put(cpu, frames[i], Type::descriptors);
    return false;
  }
  u64* slots = frames_.table(layout_.tables_l1) + u64{vcpu} * kTablePages;
  for (unsigned i = 0; i < kGdtGuestPages; i++) {
    if (i < (v.gdt_entries + 511) / 512) frames_.put(cpu, v.gdt[i], Type::descriptors);
    v.gdt[i] = i < pages ? frames[i] : kNoMfn;
    constexpr u64 kBits = pte::present | pte::writable | pte::accessed | pte::dirty | pte::nx;
    __atomic_store_n(slots + i, i < pages ? gpa(frames[i]).raw | kBits : 0, __ATOMIC_RELAXED);
    if (vcpu == cpu.index) cpu::tlb_flush_page(cpu, gdt_address(vcpu).wrapping_add(i * kPageSize));
  }
  v.gdt_entries = entries;
  return true;
}

Status Domain::set_gdt(cpu::Vcpu& cpu, Gva list, u64 entries) {
  if (entries > FIRST_RESERVED_GDT_ENTRY) return fail(XEN_EINVAL);
  Mfn frames[kGdtGuestPages] = {};
  if (!copy_from(cpu, list, frames, (entries + 511) / 512 * sizeof(Mfn))) return fail(XEN_EFAULT);
  const Locked locked{*this, cpu};
  return install_gdt(cpu, cpu.index, frames, static_cast<u32>(entries)) ? 0 : fail(XEN_EINVAL);
}

void Domain::release_ldt(cpu::Vcpu& cpu) {
  u64* slots = frames_.table(layout_.tables_l1) + u64{cpu.index} * kTablePages + kLdtPage;
  for (unsigned i = 0; i < kTablePages - kLdtPage; i++) {
    const u64 entry = std::exchange(slots[i], 0);
    if (!(entry & pte::present)) continue;
    frames_.put(cpu, pte::mfn(entry), Type::descriptors);
    cpu::tlb_flush_page(cpu, ldt_address(cpu.index).wrapping_add(i * kPageSize));
  }
}

// The caller holds lock_. All pages are looked at now; Xen waits for their first use.
Status Domain::set_ldt(cpu::Vcpu& cpu, Gva base, u64 entries) {
  VcpuState& v = state(cpu);
  if (entries > kMostLdtEntries || base.page_offset() != 0 || (entries != 0 && !guest_range(base, entries * 8)))
    return fail(XEN_EINVAL);
  release_ldt(cpu);
  v.ldt_base = {}, v.ldt_entries = 0;
  cpu.ldtr = cpu::null_segment(0);
  if (entries == 0) return 0;
  u64* slots = frames_.table(layout_.tables_l1) + u64{cpu.index} * kTablePages + kLdtPage;
  for (u64 i = 0; i < (entries + 511) / 512; i++) {
    Mfn table;
    unsigned index;
    const u64* entry = entry_of(cpu, base.wrapping_add(i * kPageSize), &table, &index);
    const u64 found = entry ? __atomic_load_n(entry, __ATOMIC_RELAXED) : 0;
    if (!(found & pte::present) || !frames_.owned(pte::mfn(found)) ||
        !frames_.get(cpu, pte::mfn(found), Type::descriptors)) {
      release_ldt(cpu);
      return fail(XEN_EINVAL);
    }
    slots[i] = (found & pte::address) | pte::present | pte::writable | pte::accessed | pte::dirty | pte::nx;
  }
  v.ldt_base = base;
  v.ldt_entries = static_cast<u32>(entries);
  cpu.ldtr.selector = 0xe048;
  cpu.ldtr.attr = 0x82;
  cpu.ldtr.base = ldt_address(cpu.index).raw;
  cpu.ldtr.limit = static_cast<u32>(entries * 8 - 1);
  cpu.ldtr.usable = true;
  return 0;
}

Status Domain::update_descriptor(cpu::Vcpu& cpu, Gpa at, u64 descriptor) {
  if (at.raw & 7) return fail(XEN_EINVAL);
  if (!check_descriptor(&descriptor)) return fail(XEN_EINVAL);
  const Locked locked{*this, cpu};
  const Mfn mfn = mfn_of(at);
  if (!frames_.owned(mfn)) return fail(XEN_EINVAL);
  const Type type = frames_.is(mfn, Type::descriptors) ? Type::descriptors : Type::writable;
  if (!frames_.get(cpu, mfn, type)) return fail(XEN_EINVAL);
  __atomic_store_n(reinterpret_cast<u64*>(ram_.host(at)), descriptor, __ATOMIC_SEQ_CST);
  if (cpu.code) cpu.code->written(at.frame(), static_cast<u32>(at.page_offset()), 8);
  frames_.put(cpu, mfn, type);
  return 0;
}

}  // namespace trapline::para::xen
