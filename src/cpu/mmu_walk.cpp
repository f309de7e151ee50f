// The page walk of every paging mode. Intel SDM Vol. 3A sections 4.3 (32-bit), 4.4 (PAE), 4.5 (4-level), 4.6 (access
// rights), 4.7 (error codes), 4.8 (accessed and dirty flags).
//
// The tables are read from RAM in place. Nothing is written before the access is known to be allowed; then A and D are
// set by compare-and-exchange, because other vCPUs and the guest itself may be changing the same entries. If one did,
// walk again.
#include "base/trace.h"
#include "cpu/mmu_internal.h"
#include "cpu/write_watch.h"

namespace trapline::cpu {

namespace {

namespace pte {
constexpr u64 present = 1, writable = 2, user = 4, accessed = 32, dirty = 64, page_size = 128, global = 256,
              nx = u64{1} << 63;
}
constexpr u64 kAddressBits = 0x000ffffffffff000;

// The host address of a table entry, or null where there is neither RAM nor ROM (whose A and D bits stay, harmlessly).
template <class T>
T* entry_at(const Vcpu& cpu, Gpa gpa) {
  return cpu.ram->is_memory(gpa) ? reinterpret_cast<T*>(cpu.ram_base + gpa.raw) : nullptr;
}

// A table in device memory or nowhere reads as all ones, as an unanswered bus cycle does.
template <class T>
u64 load(const T* entry) {
  return entry ? __atomic_load_n(entry, __ATOMIC_RELAXED) : T(~T{0});
}

u32 permissions(const Vcpu& cpu, bool user, bool writable, bool nx) {
  const bool supervisor_writes = writable || !(cpu.cr0 & cr0::wp);
  u32 p = perm::kernel_ac_read | (supervisor_writes ? perm::kernel_ac_write : 0);
  if (user) {
    p |= perm::user_read | (writable ? perm::user_write : 0);
    if (!nx) p |= perm::user_fetch | (cpu.cr4 & cr4::smep ? 0 : perm::kernel_fetch);
  } else {
    p |= perm::kernel_read | (supervisor_writes ? perm::kernel_write : 0) | (nx ? 0 : perm::kernel_fetch);
  }
  return p;
}

// Do both modes of a guest without rings see the same here? A level-4 entry tells; one that is changed later has been
// flushed by who changed it.
bool same_in_both_modes(const Vcpu& cpu, Gva linear) {
  const Gpa other = state(cpu).other_root;
  if (other == Gpa{}) return false;
  constexpr u64 kSame = kAddressBits | pte::present | pte::writable | pte::user | pte::nx;
  const u64 at = (linear.raw >> 39 & 511) * 8;
  const u64 here = load(entry_at<u64>(cpu, Gpa{(cpu.cr3 & kAddressBits) + at}));
  const u64 there = load(entry_at<u64>(cpu, other.wrapping_add(at)));
  return ((here ^ there) & kSame) == 0;
}

// A guest whose kernel runs at CPL 3: both modes' pages are the user's, and the mode that fills an entry decides whose
// it is. Pages that are not are the hypervisor's.
u32 permissions_without_rings(const Vcpu& cpu, Gva linear, bool user, bool writable, bool nx) {
  if (!user) return perm::kernel_read | (writable ? perm::kernel_write : 0);
  const bool kernel = kernel_at_cpl3(cpu), both = same_in_both_modes(cpu, linear);
  u32 p = 0;
  if (both || kernel)
    p |= perm::kernel_ac_read | (writable ? perm::kernel_ac_write : 0) | (nx ? 0 : perm::kernel_fetch);
  if (both || !kernel) p |= perm::user_read | (writable ? perm::user_write : 0) | (nx ? 0 : perm::user_fetch);
  return p;
}

u32 permissions(const Vcpu& cpu, Gva linear, bool user, bool writable, bool nx) {
  if (cpu.hypervisor) return permissions_without_rings(cpu, linear, user, writable, nx);
  return permissions(cpu, user, writable, nx);
}

// A hypervisor that sees every change of a page table keeps the upper half as global, and says when it is not.
bool is_global(const Vcpu& cpu, Gva linear, u64 leaf) {
  if (cpu.hypervisor) return linear.raw >> 63;
  return (leaf & pte::global) && (cpu.cr4 & cr4::pge);
}

bool page_fault(Vcpu& cpu, Gva linear, Access access, bool user, u32 cause) {
  u32 error = cause;
  if (access == Access::write || access == Access::rmw) error |= pf_error::write;
  if (user) error |= pf_error::user;
  const bool nx_on = (cpu.cr4 & cr4::pae) && (cpu.efer & efer::nxe);
  if (access == Access::fetch && (nx_on || (cpu.cr4 & cr4::smep))) error |= pf_error::fetch;
  cpu.fault = Fault{Vector::pf, error, linear.raw, 0};
  return false;
}

// The entries used on the way to a page.
template <class T>
struct Path {
  T* at[4];
  u64 value[4];
  unsigned length = 0;
  void add(T* p, u64 v) {
    at[length] = p;
    value[length++] = v;
  }
  // Sets A everywhere and D in the last. False: an entry has changed meanwhile.
  bool mark_used(bool write) const {
    for (unsigned i = 0; i < length; i++) {
      const u64 want = value[i] | pte::accessed | (write && i + 1 == length ? pte::dirty : 0);
      if (want == value[i] || !at[i]) continue;
      T expected = static_cast<T>(value[i]);
      if (!__atomic_compare_exchange_n(at[i], &expected, static_cast<T>(want), false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED))
        return false;
      if (write_watch) [[unlikely]]
        write_watch->marked(at[i], sizeof(T), want & ~value[i]);
    }
    return true;
  }
};

enum class Step : u8 { found, absent, reserved };

// What one traversal finds. `rights`: the entries' R/W and U/S bits ANDed; `nx`: any of them forbids execution.
struct Found {
  Step step = Step::absent;
  Gpa gpa;  // of the 4 KiB page that holds the address
  u8 page_shift = 12;
  u64 rights = pte::writable | pte::user;
  bool nx = false;
  u64 leaf = 0;
};

// 32-bit paging: two levels, 4 MiB pages with PSE, 40-bit addresses for them with PSE-36 (SDM 4.3).
Found traverse32(const Vcpu& cpu, Gva linear, Path<u32>& path) {
  Found f;
  u32* pde_at = entry_at<u32>(cpu, Gpa{(cpu.cr3 & 0xfffff000) + (linear.raw >> 22 & 1023) * 4});
  const u64 pde = load(pde_at);
  if (!(pde & pte::present)) return f;
  f.rights &= pde;
  if ((pde & pte::page_size) && (cpu.cr4 & cr4::pse)) {
    const u64 base = (pde & 0xffc00000) | (pde & 0x1fe000) << 19;
    if ((pde & 0x200000) || (base & ~state(cpu).physical_mask)) {
      f.step = Step::reserved;
      return f;
    }
    path.add(pde_at, pde);
    f.gpa = Gpa{base | (linear.raw & 0x3ff000)};
    f.page_shift = 22;
    f.leaf = pde;
    f.step = Step::found;
    return f;
  }
  path.add(pde_at, pde);
  u32* pte_at = entry_at<u32>(cpu, Gpa{(pde & 0xfffff000) + (linear.raw >> 12 & 1023) * 4});
  const u64 e = load(pte_at);
  if (!(e & pte::present)) return f;
  path.add(pte_at, e);
  f.rights &= e;
  f.gpa = Gpa{e & 0xfffff000};
  f.leaf = e;
  f.step = Step::found;
  return f;
}

// PAE and 4-level paging, from `level` (3: PML4 .. 0: page table) down.
Found traverse64(const Vcpu& cpu, Gva linear, u64 table, int level, u64 reserved, Path<u64>& path) {
  Found f;
  for (;; level--) {
    u64* at = entry_at<u64>(cpu, Gpa{table + (linear.raw >> (12 + 9 * level) & 511) * 8});
    const u64 e = load(at);
    if (!(e & pte::present)) return f;
    const bool large = level != 0 && (e & pte::page_size);
    u64 forbidden = reserved;
    if (large && (level == 3 || (level == 2 && !state(cpu).gigabyte_pages))) forbidden |= pte::page_size;
    if (large)
      forbidden |= (u64{1} << (12 + 9 * level)) - (u64{1} << 13);  // address bits below the page's size; bit 12 is PAT
    if (e & forbidden) {
      f.step = Step::reserved;
      return f;
    }
    path.add(at, e);
    f.rights &= e;
    f.nx |= e >> 63;
    if (level == 0 || large) {
      const u64 inside = (u64{1} << (12 + 9 * level)) - 1;
      f.gpa = Gpa{(e & kAddressBits & ~inside) | (linear.raw & inside & kPageMask)};
      f.page_shift = static_cast<u8>(12 + 9 * level);
      f.leaf = e;
      f.step = Step::found;
      return f;
    }
    table = e & kAddressBits;
  }
}

// Reserved in every entry: addresses beyond MAXPHYADDR, NX unless enabled, and in legacy PAE bits 62:52.
u64 reserved_bits(const Vcpu& cpu) {
  u64 r = kAddressBits & ~state(cpu).physical_mask;
  if (!(cpu.efer & efer::nxe)) r |= pte::nx;
  if (!cpu.long_mode_active()) r |= 0x7ff0000000000000;
  return r;
}

Found traverse(const Vcpu& cpu, Gva linear, Path<u64>& path) {
  if (cpu.long_mode_active()) return traverse64(cpu, linear, cpu.cr3 & kAddressBits, 3, reserved_bits(cpu), path);
  const u64 pdpte = cpu.pdpte[linear.raw >> 30 & 3];
  if (!(pdpte & pte::present)) return {};
  return traverse64(cpu, linear, pdpte & kAddressBits, 1, reserved_bits(cpu), path);
}
Found traverse(const Vcpu& cpu, Gva linear, Path<u32>& path) { return traverse32(cpu, linear, path); }

template <class T>
bool walk_as(Vcpu& cpu, Gva linear, Access access, u32 need, bool user, Walk& out) {
  const bool write = access == Access::write || access == Access::rmw;
  for (;;) {
    Path<T> path;
    const Found f = traverse(cpu, linear, path);
    if (f.step == Step::absent) return page_fault(cpu, linear, access, user, 0);
    if (f.step == Step::reserved) return page_fault(cpu, linear, access, user, pf_error::present | pf_error::reserved);
    out.perms = permissions(cpu, linear, f.rights & pte::user, f.rights & pte::writable, f.nx);
    if (!(out.perms & need)) return page_fault(cpu, linear, access, user, pf_error::present);
    if (!path.mark_used(write)) continue;
    out.gpa = f.gpa;
    out.page_shift = f.page_shift;
    out.global = is_global(cpu, linear, f.leaf);
    out.dirty = write || (f.leaf & pte::dirty);
    return true;
  }
}

}  // namespace

bool walk(Vcpu& cpu, Gva linear, Access access, u32 need, bool user, Walk& out) {
  if (!(cpu.cr0 & cr0::pg)) {
    out = Walk{Gpa{linear.raw & 0xfffff000}, kAllBits, 12, false, true};
    return true;
  }
  cpu.count.page_walks++;
  state(cpu).read_policy(cpu.cpuid);
  const bool ok = cpu.cr4 & cr4::pae ? walk_as<u64>(cpu, linear, access, need, user, out)
                                     : walk_as<u32>(cpu, linear, access, need, user, out);
  if (ok)
    TRACE(mmu, "walk {:#x} -> {:#x}", linear, out.gpa);
  else
    TRACE(mmu, "walk {:#x} faults, error {:#x}", linear, cpu.fault.error);
  return ok;
}

bool peek_fetch(const Vcpu& cpu, Gva linear, FetchPage* out) {
  if (!(cpu.cr0 & cr0::pg)) {
    *out = {Gpa{linear.raw & 0xffffffff}, kAllBits, false, 12};
    return true;
  }
  if (!cpu.long_mode_active())
    linear = Gva{linear.raw & 0xffffffff};
  else if (!canonical(linear))
    return false;
  state(cpu).read_policy(cpu.cpuid);
  Found f;
  if (cpu.cr4 & cr4::pae) {
    Path<u64> path;
    f = traverse(cpu, linear, path);
  } else {
    Path<u32> path;
    f = traverse(cpu, linear, path);
  }
  if (f.step != Step::found) return false;
  *out = {f.gpa.wrapping_add(linear.page_offset()),
          permissions(cpu, linear, f.rights & pte::user, f.rights & pte::writable, f.nx),
          is_global(cpu, linear, f.leaf), f.page_shift};
  return true;
}

bool peek_translate(const Vcpu& cpu, Gva linear, Gpa* out) {
  FetchPage page;
  if (!peek_fetch(cpu, linear, &page)) return false;
  *out = page.gpa;
  return true;
}

bool load_pdptes(Vcpu& cpu, u64 cr3) {
  state(cpu).read_policy(cpu.cpuid);
  // Bits 2:1, 8:5 and everything above MAXPHYADDR (SDM table 4-8).
  const u64 reserved = 0x1e6 | 0xfff0000000000000 | (kAddressBits & ~state(cpu).physical_mask);
  u64 fresh[4];
  for (unsigned i = 0; i < 4; i++) {
    fresh[i] = load(entry_at<u64>(cpu, Gpa{(cr3 & 0xffffffe0) + i * 8}));
    if ((fresh[i] & pte::present) && (fresh[i] & reserved)) return false;
  }
  std::memcpy(cpu.pdpte, fresh, sizeof fresh);
  return true;
}

}  // namespace trapline::cpu
