// Guest virtual memory: the software TLB's fast path (inline) and its slow path (page walk, permission faults, device
// memory, code pages). Intel SDM Vol. 3A chapter 4.
//
// Direct-mapped TLB, two halves by address bit 63 (user and kernel half), entries of 4 KiB whatever the guest's page
// size. An entry carries every permission at once, so neither CPL nor SMAP's AC switches anything but Vcpu::need_*.
// Never in the TLB: device memory. Without write bits: pages that hold decoded code (CodeMap), pages whose D bit is
// still clear.
#pragma once

#include <cstring>
#include <type_traits>

#include "cpu/split_lock.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

// Permission bits of a TLB entry, and of Vcpu::need_*.
namespace perm {
inline constexpr u32 kernel_read = 1, kernel_write = 2, kernel_fetch = 4;  // CPL < 3 with SMAP in force (AC = 0)
inline constexpr u32 kernel_ac_read = 8, kernel_ac_write = 16;             // CPL < 3, AC = 1 or no SMAP
inline constexpr u32 user_read = 32, user_write = 64, user_fetch = 128;
inline constexpr u32 never =
    1u << 31;  // need_* while alignment checks, data breakpoints or paging quirks ask for the slow path
}  // namespace perm

struct TlbEntry {
  Gva tag{~u64{0}};  // the page; ~0: empty
  u64 addend = 0;    // host address = gva + addend
  u32 perm = 0;
  u16 slow_perm = 0;  // perm, and the write bits that only decoded code in the frame takes away
  u8 global = 0;
  u8 page_shift = 12;                                                          // size of the guest's page, for INVLPG
  Gpa gpa;                                                                     // the page
  u8* host(Gva gva) const { return reinterpret_cast<u8*>(gva.raw + addend); }  // of an address in its page
};

struct Tlb {
  static constexpr u64 kEntries = 1024;  // each half
  TlbEntry* half[2];                     // [gva >> 63]; the lower one may be switched per PCID
  TlbEntry* fetch[2];                    // the same for instruction fetch
  static constexpr u64 kFetchEntries = 256;
};

// What an engine keeps that was derived from the TLB: told of everything that makes entries invalid, by the vCPU's own
// thread, after the TLB itself has changed.
struct TlbMirror {
  virtual ~TlbMirror() = default;
  virtual void flushed_all() = 0;             // every entry
  virtual void flushed_nonglobal() = 0;       // all but global ones (of the current address space, at least)
  virtual void flushed_page(Gva linear) = 0;  // also a large page that holds it
  // By a page fault: in the current PCID, where INVLPG takes its page out of all.
  virtual void faulted_page(Gva linear) { flushed_page(linear); }
  virtual void switched() = 0;  // another address space: all but global ones
  // Which entries of the lower half one of these was about: those of a PCID (0 without them), or of all. Told as well.
  virtual void flushed_context(u16 pcid) { static_cast<void>(pcid); }
  virtual void flushed_all_contexts() {}
  virtual void dropped_write(Gpa page) = 0;  // no entry may write to this frame any more
  virtual void dropped_all_write() = 0;
  // A walk has put this data entry in the TLB. Told while guest memory is watched (cpu/write_watch.h).
  virtual void filled(const TlbEntry& e) { static_cast<void>(e); }
};

enum class Access : u8 { read, write, rmw, fetch };  // rmw: reports a write, needs both

// -- Fast path: the host address of a `size`-byte access wholly inside one resident page with permission, or null
inline u8* tlb_lookup(const Vcpu& cpu, Gva gva, unsigned size, u32 need) {
  const TlbEntry& e = cpu.tlb->half[gva.raw >> 63][gva.raw >> 12 & (Tlb::kEntries - 1)];
  // The last byte's page against the first byte's entry: an access across pages never matches.
  if (gva.wrapping_add(size - 1).page() != e.tag || (e.perm & need) == 0) [[unlikely]]
    return nullptr;
  return e.host(gva);
}

// -- Slow path (mmu.cpp). All return false with cpu.fault set when the access faults. Any size up to 4096 bytes;
// page-crossing, device memory and code pages included; checks everything before writing anything. `seg` only selects
// #SS or #GP for a non-canonical address, and names the segment for alignment of reports.
bool read_slow(Vcpu& cpu, Seg seg, Gva linear, void* out, unsigned size);
bool write_slow(Vcpu& cpu, Seg seg, Gva linear, const void* in, unsigned size);
// Checks that [linear, linear+size) could be accessed so; faults as the access would. Nothing is transferred (A/D bits
// are set).
bool probe(Vcpu& cpu, Seg seg, Gva linear, unsigned size, Access access);
// Supervisor accesses that ignore CPL: descriptor tables, TSS, IDT, and stacks being switched to.
// `seg`: ss where the manual has #SS for a non-canonical address (a stack being switched to).
bool read_system(Vcpu& cpu, Gva linear, void* out, unsigned size, Seg seg = Seg::ds);
bool write_system(Vcpu& cpu, Gva linear, const void* in, unsigned size, Seg seg = Seg::ds);
// For a read-modify-write: a host pointer when the bytes are plain RAM inside one page (fills the TLB; a page that
// holds code is not plain), or null with *faulted telling whether cpu.fault is set. On null without fault: use
// read_slow and write_slow, under split_lock() if the guest asked for LOCK.
u8* rmw_slow(Vcpu& cpu, Seg seg, Gva linear, unsigned size, bool* faulted);
// The locked counterpart of write_slow, after read_slow gave `expected`: for 1, 2, 4, 8 or 16 bytes of RAM inside one
// page it stores only if they still are that, in one host instruction (*stored tells: code pages are written by others
// without split_lock()). Elsewhere it always stores.
bool replace_slow(Vcpu& cpu, Seg seg, Gva linear, const void* expected, const void* in, unsigned size, bool* stored);
// Is alignment checking (#AC) in force? SDM Vol. 3A 6.15, vector 17.
inline bool alignment_checks(const Vcpu& cpu) {
  return cpu.cpl == 3 && (cpu.cr0 & cr0::am) && (cpu.sys_flags & flag::ac);
}
// While it lives no access raises #AC: for what hosts do not check, such as the elements of masked operands.
class AlignmentUnchecked {
 public:
  explicit AlignmentUnchecked(Vcpu& cpu) : cpu_{cpu}, ac_{cpu.sys_flags & flag::ac} { cpu.sys_flags &= ~flag::ac; }
  ~AlignmentUnchecked() { cpu_.sys_flags |= ac_; }
  AlignmentUnchecked(const AlignmentUnchecked&) = delete;
  AlignmentUnchecked& operator=(const AlignmentUnchecked&) = delete;

 private:
  Vcpu& cpu_;
  u32 ac_;
};
// -- Segmentation: offset -> linear address. Limit, type and null checks of the legacy modes, canonical checks are the
// TLB's. False: cpu.fault set (#GP(0) or #SS(0)).
bool segment_check_slow(Vcpu& cpu, Seg seg, u64 offset, unsigned size, Access access);
inline bool to_linear(Vcpu& cpu, Seg seg, u64 offset, unsigned size, Access access, Gva& linear) {
  const Segment& s = cpu.segment(seg);
  if (!(access == Access::read || access == Access::fetch ? s.flat_read : s.flat_write)) [[unlikely]]
    if (!segment_check_slow(cpu, seg, offset, size, access)) return false;
  linear = Gva{(s.linear_base + offset) & cpu.linear_mask};
  return true;
}

// -- What instruction semantics call
template <class T>
[[nodiscard]] inline bool read(Vcpu& cpu, Seg seg, u64 offset, T& out) {
  static_assert(std::is_trivially_copyable_v<T>);
  Gva linear;
  if (!to_linear(cpu, seg, offset, sizeof(T), Access::read, linear)) [[unlikely]]
    return false;
  if (const u8* host = tlb_lookup(cpu, linear, sizeof(T), cpu.need_read)) [[likely]] {
    std::memcpy(&out, host, sizeof(T));
    return true;
  }
  return read_slow(cpu, seg, linear, &out, sizeof(T));
}
template <class T>
[[nodiscard]] inline bool write(Vcpu& cpu, Seg seg, u64 offset, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  Gva linear;
  if (!to_linear(cpu, seg, offset, sizeof(T), Access::write, linear)) [[unlikely]]
    return false;
  if (u8* host = tlb_lookup(cpu, linear, sizeof(T), cpu.need_write)) [[likely]] {
    std::memcpy(host, &value, sizeof(T));
    return true;
  }
  return write_slow(cpu, seg, linear, &value, sizeof(T));
}

// -- Instruction fetch. Translates the page of linear address `linear` for execution at the current CPL; fills the
// fetch TLB. Null: fault set, or *device set when the page is not RAM (executing device memory raises #GP here: nobody
// does it).
const TlbEntry* fetch_page(Vcpu& cpu, Gva linear);
inline const TlbEntry* fetch_lookup(Vcpu& cpu, Gva linear) {
  const TlbEntry& e = cpu.tlb->fetch[linear.raw >> 63][linear.raw >> 12 & (Tlb::kFetchEntries - 1)];
  if (linear.page() == e.tag && (e.perm & cpu.need_fetch)) [[likely]]
    return &e;
  return fetch_page(cpu, linear);
}

// -- TLB maintenance
void mmu_create(Vcpu& cpu);  // allocates the TLB
void mmu_destroy(Vcpu& cpu);
void tlb_flush_all(Vcpu& cpu);  // global ones and all PCIDs too: CR0.PG, CR4.PGE/PAE/PSE/PCIDE/SMEP changes, INVPCID 2
void tlb_flush_nonglobal(Vcpu& cpu);                   // MOV CR3 without PCID
void tlb_switch_pcid(Vcpu& cpu, u16 pcid, bool keep);  // MOV CR3 with PCID; keep: its entries stay (bit 63)
void tlb_flush_pcid(Vcpu& cpu, u16 pcid);              // INVPCID 1
void tlb_flush_all_nonglobal(Vcpu& cpu);               // INVPCID 3
void tlb_flush_page(Vcpu& cpu, Gva linear);            // INVLPG: also large pages that hold it
void tlb_drop_write(Vcpu& cpu,
                    Gpa page);  // takes the write bits of every entry that maps this frame (it now holds code)
void tlb_drop_all_write(Vcpu& cpu);

// True when bits 63:47 are equal (48-bit linear addresses).
constexpr bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }
constexpr bool canonical(Gva linear) { return canonical(linear.raw); }
// PAE paging: loads the four PDPTEs from the table at `cr3`. False, changing nothing: a reserved bit is set (the caller
// raises #GP(0)).
bool load_pdptes(Vcpu& cpu, u64 cr3);

// -- Debugger and reports: translate without side effects and without permissions. False: not mapped
bool peek_translate(const Vcpu& cpu, Gva linear, Gpa* out);
// Where instructions at `linear` come from now, and who may fetch them (perm::*_fetch), without side effects. False:
// not mapped.
struct FetchPage {
  Gpa gpa{0};
  u32 perms = 0;
  bool global = false;
  u8 page_shift = 12;
};
bool peek_fetch(const Vcpu& cpu, Gva linear, FetchPage* out);
bool peek(const Vcpu& cpu, Gva linear, void* out, unsigned size);  // RAM only
bool poke(Vcpu& cpu, Gva linear, const void* in, unsigned size);   // RAM only; code caches are told

}  // namespace trapline::cpu
