// What the files of the MMU share: the TLB with its bookkeeping, and the page walk.
#pragma once

#include <atomic>

#include "cpu/mmu.h"

namespace trapline::cpu {

// One direct-mapped array with what makes flushing it cheap: the indices filled with non-global entries since the last
// flush, and a filter of the large pages that have fragments in it.
template <unsigned N>
struct TlbArray {
  static constexpr unsigned kList = N / 8;
  TlbEntry entry[N];
  u16 filled[kList];
  u32 fills = 0;  // non-global fills since the last flush; beyond kList the list is incomplete
  bool any_global = false;
  u64 large[4] = {};  // hashed 2 MiB regions that a large page covers
  u64 huge = 0;       // hashed 1 GiB regions likewise

  TlbEntry& at(Gva linear) { return entry[linear.raw >> 12 & (N - 1)]; }
  void put(const TlbEntry& e);
  void flush();
  void flush_nonglobal();
  void flush_page(Gva linear);
  void drop_write(Gpa page);
};

struct TlbState : Tlb {
  // One lower half per recently used PCID. Linux uses six address-space numbers per CPU.
  static constexpr unsigned kSlots = 8;
  struct Half {
    TlbArray<kEntries> data;
    TlbArray<kFetchEntries> fetch;
  };
  Half slot[kSlots];
  Half upper;
  u16 pcid[kSlots] = {};
  bool slot_used[kSlots] = {};
  u64 last_use[kSlots] = {};
  u64 switches = 0;
  unsigned current = 0;

  // By frame: which entry has write permission to it, so that taking it away need not search. 0: none; kMany: search;
  // else 1 + array << 10 | index. Entries that were since replaced leave their mark behind: it is checked against the
  // entry.
  static constexpr u16 kMany = 0xffff;
  u16* writer = nullptr;
  u64 writer_bytes = 0;

  // From the CPUID policy.
  const Cpuid* policy = nullptr;
  bool policy_known = false;
  u64 physical_mask = 0;  // addresses a guest may name
  bool gigabyte_pages = true;

  // With a hypervisor: the guest is in its kernel's mode, at CPL 3 all the same. Its accesses need the permissions of a
  // kernel that SMAP does not hold back; those of the hypervisor's own tables the permissions of one that it does.
  bool kernel_at_cpl3 = false;
  Gpa other_root;  // the level-4 table of the guest's other mode; 0: none

  Half& half_of(Gva linear) { return linear.raw >> 63 ? upper : slot[current]; }
  void read_policy(const Cpuid* cpuid);
};

inline TlbState& state(const Vcpu& cpu);
inline bool kernel_at_cpl3(const Vcpu& cpu) { return cpu.hypervisor && cpu.tlb && state(cpu).kernel_at_cpl3; }
inline TlbState& state(const Vcpu& cpu) { return static_cast<TlbState&>(*cpu.tlb); }

// Puts an entry in place and remembers it as writer of its frame.
void tlb_fill(Vcpu& cpu, Gva linear, const TlbEntry& e, bool fetch);
void tlb_note_writer(Vcpu& cpu, Gva linear, u64 frame);

// A page fault ends the entries of its page in this address space, whatever they allow: what the tables say now counts
// for the next access (SDM Vol. 3A 4.10.4.1, APM Vol. 2 5.5.2).
void tlb_page_fault(Vcpu& cpu, Gva linear);

inline constexpr u32 kWriteBits = perm::kernel_write | perm::kernel_ac_write | perm::user_write;
inline constexpr u32 kAllBits = 255;

// The permission an access needs, without perm::never. `system`: an implicit supervisor access.
u32 needed(const Vcpu& cpu, Access access, bool system);

// Where a linear address leads.
struct Walk {
  Gpa gpa;        // the page
  u32 perms = 0;  // as if D were set
  u8 page_shift = 12;
  bool global = false;
  bool dirty = false;
};

// Walks the guest's tables for an access that needs one of the bits of `need`; sets A, and D for a write. False:
// cpu.fault is the #PF; `user`: the access is reported as one from user mode.
bool walk(Vcpu& cpu, Gva linear, Access access, u32 need, bool user, Walk& out);

// RAM, and not hidden behind the local APIC's page: may be accessed through the host address. The second: or ROM, which
// may be read and executed so.
bool is_plain_ram(const Vcpu& cpu, Gpa gpa);
bool is_plain_memory(const Vcpu& cpu, Gpa gpa);

}  // namespace trapline::cpu
