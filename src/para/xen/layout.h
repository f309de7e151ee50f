// Where the memory of a VM goes under --para xen. "Machine" frames are the VM's guest-physical frames; the guest owns
// most, and numbers what it owns from 0 without gaps ("pseudo-physical" frames). The rest is the hypervisor's: the low
// MiB is left alone, and below the end of low RAM lies the heap, of which the guest reaches only what is mapped for it.
//
//   machine:  0 .. 1 MiB   | the guest's ........ | heap | 3 GiB hole | the guest's ...
//   heap:     machine-to-physical table, the page tables of the hypervisor's area, a GDT page, shared info, grant table,
//             what the back ends share with the machine's devices
//
// The hypervisor's area of linear addresses (slots 256 to 271 of every level-4 table) has two parts in use:
//   ffff8000_00000000   machine-to-physical table, read-only to the guest
//   ffff8200_00000000   32 pages a vCPU: its GDT (14 pages of the guest's, one of Xen's), its LDT; not the guest's
#pragma once

#include <optional>

#include "base/guest_memory.h"
#include "base/types.h"

namespace trapline::para::xen {

// A frame by its number in one of the two numberings, which do not mix.
template <class Numbering>
struct FrameNumber {
  u64 raw = 0;
  constexpr FrameNumber() = default;
  constexpr explicit FrameNumber(u64 r) : raw{r} {}
  constexpr auto operator<=>(const FrameNumber&) const = default;
  constexpr u64 operator-(FrameNumber first) const { return raw - first.raw; }  // a distance
  constexpr FrameNumber operator+(u64 n) const { return FrameNumber{raw + n}; }
  constexpr FrameNumber& operator+=(u64 n) { return raw += n, *this; }
  constexpr FrameNumber& operator++() { return *this += 1; }
};
using Mfn = FrameNumber<struct Machine>;
using Pfn = FrameNumber<struct PseudoPhysical>;
static_assert(sizeof(Mfn) == sizeof(u64));  // lists of them are in the guest's memory

// "Machine" addresses are the VM's guest-physical ones.
constexpr Gpa gpa(Mfn mfn) { return Gpa{mfn.raw * kPageSize}; }
constexpr Mfn mfn_of(Gpa gpa) { return Mfn{gpa.frame()}; }

inline constexpr Gva kHypervisorStart{0xffff800000000000}, kHypervisorEnd{0xffff880000000000};
inline constexpr unsigned kFirstHypervisorSlot = 256, kLastHypervisorSlot = 271;
inline constexpr Gva kTablesStart{0xffff820000000000};  // descriptor tables, by vCPU
inline constexpr unsigned kTablePages = 32, kLdtPage = 16, kGdtGuestPages = 14;
inline constexpr unsigned kGrantFrames = 32;
inline constexpr u64 kEntries = 512;  // of a page table
inline constexpr Mfn kNoMfn{};        // frame 0 is nobody's
inline constexpr Pfn kNoPfn{~u64{0}};
inline constexpr u64 kDiskFrames = 9, kNetworkFrames = 66;  // of the heap, for the back end of one

constexpr Gva gdt_address(u32 vcpu) { return kTablesStart.wrapping_add(u64{vcpu} * kTablePages * kPageSize); }
constexpr Gva ldt_address(u32 vcpu) { return gdt_address(vcpu).wrapping_add(kLdtPage * kPageSize); }

class Layout {
 public:
  // `backend_frames`: those of all back ends. Nothing: too little memory for both.
  static std::optional<Layout> of(const GuestMemory& ram, u32 vcpus, u64 backend_frames = 0);

  u64 pages() const { return low_pages_ + high_pages_; }  // that the guest owns at the start
  u64 frames() const { return frames_; }                  // machine frames, holes included
  Mfn mfn(Pfn pfn) const { return pfn.raw < low_pages_ ? kFirst + pfn.raw : kHigh + (pfn.raw - low_pages_); }
  Pfn pfn(Mfn mfn) const;  // kNoPfn: not the guest's at the start
  bool guest(Mfn mfn) const { return pfn(mfn) != kNoPfn; }

  // The heap.
  Mfn m2p, m2p_l1, m2p_l2, m2p_l3;
  u64 m2p_frames, m2p_l1_frames;
  Mfn tables_l1, tables_l2, tables_l3;
  u64 tables_l1_frames;
  Mfn gdt, shared_info, grants, backends;
  u64 backend_frames;
  bool shared(Mfn mfn) const { return mfn == shared_info || (mfn >= grants && mfn < grants + kGrantFrames); }

 private:
  static constexpr Mfn kFirst{MiB / kPageSize}, kHigh{kPciHoleEnd / kPageSize};
  u64 low_pages_ = 0, high_pages_ = 0, frames_ = 0;
};

}  // namespace trapline::para::xen

template <class Numbering>
struct fmt::formatter<trapline::para::xen::FrameNumber<Numbering>> : fmt::formatter<trapline::u64> {
  auto format(const trapline::para::xen::FrameNumber<Numbering>& n, fmt::format_context& ctx) const {
    return fmt::format_to(ctx.out(), "{:#x}", n.raw);
  }
};
