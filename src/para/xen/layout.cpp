#include "para/xen/layout.h"

namespace trapline::para::xen {

namespace {
constexpr u64 up(u64 value, u64 unit) { return (value + unit - 1) / unit; }
}  // namespace

std::optional<Layout> Layout::of(const GuestMemory& ram, u32 vcpus, u64 backend_frames) {
  Layout l;
  l.frames_ = ram.frames();
  l.m2p_frames = up(l.frames_ * sizeof(u64), kPageSize);
  l.m2p_l1_frames = up(l.m2p_frames, kEntries);
  l.tables_l1_frames = up(u64{vcpus} * kTablePages, kEntries);
  const u64 heap = l.m2p_frames + l.m2p_l1_frames + 2 + l.tables_l1_frames + 2 + 2 + kGrantFrames + backend_frames;
  const u64 low_end = ram.low_end() / kPageSize;
  if (low_end < kFirst.raw + heap + 1) return std::nullopt;
  l.low_pages_ = low_end - heap - kFirst.raw;
  l.high_pages_ = (ram.high_end() - kPciHoleEnd) / kPageSize;
  Mfn next{low_end - heap};
  const auto take = [&next](u64 count) {
    const Mfn first = next;
    next += count;
    return first;
  };
  l.m2p = take(l.m2p_frames);
  l.m2p_l1 = take(l.m2p_l1_frames);
  l.m2p_l2 = take(1);
  l.m2p_l3 = take(1);
  l.tables_l1 = take(l.tables_l1_frames);
  l.tables_l2 = take(1);
  l.tables_l3 = take(1);
  l.gdt = take(1);
  l.shared_info = take(1);
  l.grants = take(kGrantFrames);
  l.backends = take(backend_frames);
  l.backend_frames = backend_frames;
  return l;
}

Pfn Layout::pfn(Mfn mfn) const {
  if (mfn - kFirst < low_pages_ && mfn >= kFirst) return Pfn{mfn - kFirst};
  if (mfn >= kHigh && mfn - kHigh < high_pages_) return Pfn{low_pages_ + (mfn - kHigh)};
  return kNoPfn;
}

}  // namespace trapline::para::xen
